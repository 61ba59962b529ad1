// Installs the dependencies when they are missing or out of date, so that `npm start` and `npm test` work in
// a fresh clone. Plain JavaScript without dependencies: it runs before there are any, on any Node from 20.
import { createHash } from "node:crypto"
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"

const POLL_MILLIS = 100

const root = fileURLToPath(new URL("..", import.meta.url))
const lockFile = join(root, "package-lock.json")
const installedLockFile = join(root, "node_modules", ".package-lock.json")
const stampFile = join(root, "node_modules", ".package-lock.sha256")

const hash = (text) => createHash("sha256").update(text).digest("hex")
const read = (file) => (existsSync(file) ? readFileSync(file, "utf8") : "")

const wanted = hash(read(lockFile))
const isStamped = () => read(stampFile).trim() === wanted

const versionOf = (path) => JSON.parse(read(join(root, path, "package.json")) || "{}").version

// Someone who ran npm themselves has left no stamp. npm's own lock file in node_modules shows that it came to
// its end, but not with what: `npm install --package-lock-only` rewrites it too. The packages do.
const isInstalled = () =>
  !existsSync(stampFile) &&
  existsSync(installedLockFile) &&
  Object.entries(JSON.parse(read(lockFile)).packages).every(([path, { optional, version }]) => {
    if (path === "") return true
    const present = versionOf(path)
    return present === version || (optional === true && present === undefined)
  })

const isAlive = (pid) => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === "EPERM"
  }
}

// Two at once would remove each other's files: the second waits, and then finds nothing left to do.
const mutex = join(tmpdir(), `agent-army-install-${hash(root).slice(0, 16)}`)
const enter = () => {
  try {
    writeFileSync(mutex, String(process.pid), { flag: "wx" })
    return true
  } catch (error) {
    if (error.code !== "EEXIST") throw error
    const holder = Number(read(mutex))
    if (holder > 0 && !isAlive(holder)) rmSync(mutex, { force: true })
    return false
  }
}

const install = async () => {
  // Loaded only now: this file runs before every script, mostly to find nothing to do.
  const { spawnSync } = await import("node:child_process")
  console.log(
    existsSync(join(root, "node_modules"))
      ? "The dependencies don't match package-lock.json: running npm ci …"
      : "Installing the dependencies (npm ci) …"
  )
  const words = ["ci", "--no-audit", "--no-fund"]
  const npm = process.env.npm_execpath ?? ""
  const options = { cwd: root, stdio: "inherit" }
  const { error, status } =
    basename(npm) === "npm-cli.js"
      ? spawnSync(process.execPath, [npm, ...words], options)
      : spawnSync("npm", words, { ...options, shell: process.platform === "win32" })
  if (error) console.error(`npm could not be run (${error.message}): is it on the PATH?`)
  return status ?? 1
}

const ensure = async () => {
  if (isStamped()) return 0
  while (!enter()) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MILLIS)
  try {
    if (isStamped()) return 0
    const status = isInstalled() ? 0 : await install()
    if (status === 0) writeFileSync(stampFile, `${wanted}\n`)
    return status
  } finally {
    rmSync(mutex, { force: true })
  }
}

if (Number(process.versions.node.split(".")[0]) < 20) {
  console.error(
    `agent-army needs Node 20 or newer to begin with, and this is ${process.version}: https://nodejs.org`
  )
  process.exitCode = 1
} else {
  process.exitCode = await ensure()
}
