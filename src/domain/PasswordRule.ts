import { commonPasswords } from "./commonPasswords.ts"

/** Words that common passwords are made of, with digits and signs around them. */
const commonWords: ReadonlySet<string> = new Set([
  "admin",
  "agentarmy",
  "changeme",
  "iloveyou",
  "letmein",
  "login",
  "passphrase",
  "passwd",
  "password",
  "passwort",
  "qwerty",
  "secret",
  "test",
  "welcome"
])

const runs = [
  "qwertyuiopasdfghjklzxcvbnm",
  "qwertzuiopasdfghjklyxcvbnm",
  "azertyuiopqsdfghjklmwxcvbn",
  "abcdefghijklmnopqrstuvwxyz".repeat(2),
  "1234567890".repeat(10)
]
const allRuns = [...runs, ...runs.map((run) => [...run].toReversed().join(""))]

/** The longest part that a password may be a repetition of. */
const LONGEST_REPEATED = 6
/** What a password must have beside the names in it. */
const BESIDE_NAMES = 8
const SHORTEST_NAME = 3

const repeats = (text: string, part: number): boolean => text.slice(part) === text.slice(0, -part)

/** Whether it is one of the passwords that are guessed first: a known one, a common word in disguise, a pattern. */
const isCommon = (password: string): boolean => {
  const text = password.toLowerCase()
  const letters = text.replaceAll(/[^\p{L}]/gu, "")
  // "administrator2024!" is "administrator".
  if (commonPasswords.has(text) || commonPasswords.has(letters)) return true
  for (let part = 1; part <= LONGEST_REPEATED; part++) if (repeats(text, part)) return true
  if (allRuns.some((run) => run.includes(text))) return true
  for (let times = 1; times <= 3; times++) {
    const word = letters.slice(0, letters.length / times)
    if (commonWords.has(word) && word.repeat(times) === letters) return true
  }
  return false
}

/**
 * Why a password may not be taken, in words for whoever chose it; `undefined` where it may. `names` are what an
 * attacker would try first: the tenant's slug, the address's local part (NIST SP 800-63B, 5.1.1.2: known passwords,
 * dictionary words, repetitive or sequential characters, words of the context). Its length is the schema's to check.
 */
export const whyRefused = (password: string, names: ReadonlyArray<string> = []): string | undefined => {
  if (isCommon(password)) return "Expected a password that is not among the most common ones"
  const plain = (text: string) => text.toLowerCase().replaceAll(/[^\p{L}\p{N}]/gu, "")
  const whole = plain(password)
  let rest = whole
  for (const name of names.map(plain).toSorted((a, b) => b.length - a.length)) {
    if (name.length >= SHORTEST_NAME) rest = rest.replaceAll(name, "")
  }
  return rest !== whole && rest.length < BESIDE_NAMES
    ? "Expected a password of more than the tenant's name or the e-mail address"
    : undefined
}
