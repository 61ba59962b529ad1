import { Schema } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { tmpdir } from "node:os"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { TestProject } from "vitest/node"

const Server = { host: Schema.String, port: Schema.Int, password: Schema.String }

/** The servers of one test run, as plain data: it crosses from vitest's process into its workers. */
export const TestServers = Schema.Struct({
  /** For files. It is gone after the run, also when that is killed. */
  folder: Schema.String,
  postgres: Schema.Struct({ ...Server, superuser: Schema.String }),
  redis: Schema.Struct(Server)
})
export type TestServers = typeof TestServers.Type

/** What the keeper says, one message a line. */
export const KeeperMessage = Schema.Union([
  Schema.TaggedStruct("Announced", { line: Schema.String }),
  Schema.TaggedStruct("Ready", { servers: TestServers }),
  Schema.TaggedStruct("Failed", { message: Schema.String })
])
export type KeeperMessage = typeof KeeperMessage.Type

export const decodeKeeperMessage = Schema.decodeSync(Schema.fromJsonString(KeeperMessage))

export const keeperPath = fileURLToPath(new URL("./keeper.ts", import.meta.url))

declare module "vitest" {
  export interface ProvidedContext {
    readonly servers: TestServers
  }
}

/** Servers that stand already, as in a pipeline with service containers: a superuser's URL, and Redis'. */
const given = (): TestServers | undefined => {
  const { TEST_POSTGRES_URL: postgres, TEST_REDIS_URL: redis } = process.env
  if (postgres === undefined || redis === undefined) return undefined
  const server = (text: string) => {
    const { hostname, password, port, username } = new URL(text)
    return { host: hostname, port: Number(port), username, password: decodeURIComponent(password) }
  }
  const { username, ...rest } = server(postgres)
  return { folder: tmpdir(), postgres: { ...rest, superuser: username }, redis: server(redis) }
}

/** Vitest's `globalSetup`: one Postgres and one Redis for the run, on ports and in a folder of its own. */
export default async function setup(project: TestProject) {
  const servers = given()
  if (servers !== undefined) {
    project.provide("servers", servers)
    return undefined
  }
  // Detached, so that no signal to vitest's process group ends it before it has tidied up.
  const keeper = spawn(process.execPath, [keeperPath], { detached: true, stdio: ["pipe", "pipe", "inherit"] })
  const exited = once(keeper, "exit")
  const teardown = async () => {
    keeper.stdin.end()
    await exited
  }

  for await (const line of createInterface(keeper.stdout)) {
    const message = decodeKeeperMessage(line)
    if (message._tag === "Announced") project.vitest.logger.log(message.line)
    else if (message._tag === "Failed") throw new Error(message.message)
    else {
      project.provide("servers", message.servers)
      // Read on, or the keeper would find its pipe closed, or full, when it says that it stops.
      keeper.stdout.resume()
      return teardown
    }
  }
  throw new Error("The process that keeps the servers for the tests ended: see its output above.")
}
