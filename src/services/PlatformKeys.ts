import { PgTypes } from "@effect/sql-pg"
import { Clock, Context, DateTime, Duration, Effect, Layer, Redacted, Schedule, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlError } from "effect/sql"
import { calculateJwkThumbprint, exportJWK, generateKeyPair } from "jose"
import { PlatformKeyKind, RotatedKey } from "../domain/PlatformKey.ts"
import { Conflict } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { ALGORITHM, SigningKey } from "../domain/SigningKey.ts"
import type { SigningKeys } from "../domain/SigningKey.ts"
import { AdminDb } from "./AdminDb.ts"
import { AuditLog } from "./AuditLog.ts"
import { CLAIM_LIFETIME, claimKeyId, claimKeyPads } from "./Claims.ts"
import { orUnavailable, sqlStateOf } from "./DbErrors.ts"
import { importSigningKey, KeyRing } from "./KeyRing.ts"
import type { ClaimGeneration, SigningGeneration } from "./KeyRing.ts"
import { MasterKey } from "./MasterKey.ts"
import type { WrongMasterKey } from "./MasterKey.ts"
import { PlatformDb } from "./PlatformDb.ts"

/** How often an instance looks for new keys. */
const POLLED_EVERY = Duration.millis(500)
/** How long a new key is known before it signs: several polls, so that every instance knows it by then. */
const KNOWN_BEFORE_ACTIVE = Duration.seconds(5)
/** What instances' clocks may differ by, when a retired key is forgotten. */
const SLACK = Duration.minutes(5)
/** How often it is tried to forget retired keys. */
const TIDIED_EVERY = Duration.minutes(1)

const UNDEFINED_TABLE = "42P01"

const KeyRow = Schema.Struct({
  kind: PlatformKeyKind,
  kid: Schema.String,
  sealed: Schema.NullOr(Schema.Uint8Array),
  active_from: Schema.DateTimeUtcFromDate,
  retired_at: Schema.NullOr(Schema.DateTimeUtcFromDate),
  ended: Schema.Boolean
})
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(KeyRow))
const SigningKeyJson = Schema.fromJsonString(SigningKey)
const decodeSigningKey = Schema.decodeEffect(SigningKeyJson)

const purposeOf = (kind: PlatformKeyKind, kid: string) => `platform key ${kind} ${kid}`

const millisOf = (time: DateTime.Utc | null): number | null =>
  time === null ? null : DateTime.toEpochMillis(time)

/**
 * The platform's own keys through their generations. The settings' keys are the first one; those made by `rotate` stand
 * in the database, sealed. Every instance polls for them, so that a new key is known everywhere before it signs, and an
 * old one verifies until all that it signed has expired. The reasons stand in `docs/decisions/0010-keys-that-rotate.md`.
 */
export class PlatformKeys extends Context.Service<
  PlatformKeys,
  {
    /** Reads the keys anew. None of them is not an error, nor is a registry that has no table of them yet. */
    readonly refresh: Effect.Effect<void, DependencyUnavailable | WrongMasterKey>
    /** The same, at most once per poll, whoever asks how often; keeps its failure to itself. */
    readonly refreshSoon: Effect.Effect<void>
    /** Keeps the keys up to date, and forgets those that nothing needs any more. Does not end. */
    readonly poll: Effect.Effect<never>
    /** Makes the next key; it signs in a few seconds. `Conflict` while the one before has not begun to. */
    readonly rotate: (
      kind: PlatformKeyKind
    ) => Effect.Effect<RotatedKey, Conflict | DependencyUnavailable | WrongMasterKey>
  }
>()("agent-army/services/PlatformKeys") {
  static readonly layer = (options: {
    readonly claimKey: Redacted.Redacted<Uint8Array>
    readonly signingKeys: Redacted.Redacted<SigningKeys>
    /** How long an access token lives. */
    readonly tokenLifetime: Duration.Duration
  }) =>
    Layer.effect(
      PlatformKeys,
      Effect.gen(function* () {
        const platform = yield* PlatformDb
        const admin = yield* AdminDb
        const audit = yield* AuditLog
        const ring = yield* KeyRing
        const master = yield* MasterKey
        const random = yield* SecureRandom.SecureRandom
        const sql = admin.sql

        /** How long after its retirement what a key signed may be alive. */
        const needed = {
          claim: Duration.sum(CLAIM_LIFETIME, SLACK),
          signing: Duration.sum(options.tokenLifetime, SLACK)
        }

        const read = platform
          .query(
            (sql) => sql`SELECT kind, kid, sealed, active_from, retired_at, ended_at IS NOT NULL AS ended
              FROM shared.platform_keys ORDER BY active_from, kid`
          )
          .pipe(
            Effect.catchIf(
              (error) => SqlError.isSqlError(error) && sqlStateOf(error) === UNDEFINED_TABLE,
              () => Effect.succeed([])
            ),
            orUnavailable,
            Effect.flatMap((rows) => Effect.orDie(decodeRows(rows)))
          )

        /** Keys that have been opened already, so that a poll opens none. */
        const openedClaims = new Map<string, Redacted.Redacted<Uint8Array>>()
        const openedSigning = new Map<string, Effect.Success<ReturnType<typeof importSigningKey>>>()

        const openSigning = Effect.fnUntraced(function* (kid: string, sealed: Uint8Array) {
          const json = yield* master.open(sealed, purposeOf("signing", kid))
          const jwk = yield* Effect.orDie(decodeSigningKey(Buffer.from(Redacted.value(json)).toString()))
          return yield* importSigningKey({ ...jwk, kid })
        })

        const load = Effect.gen(function* () {
          const rows = yield* read
          const claim: Array<ClaimGeneration> = []
          const signing: Array<SigningGeneration> = []
          const retired = new Map<string, number>()
          for (const { active_from, ended, kid, kind, retired_at, sealed } of rows) {
            const generation = {
              kid,
              activeFrom: DateTime.toEpochMillis(active_from),
              retiredAt: millisOf(retired_at)
            }
            if (kind === "signing" && generation.retiredAt !== null) retired.set(kid, generation.retiredAt)
            if (sealed === null || ended) continue
            if (kind === "claim") {
              const key = openedClaims.get(kid) ?? (yield* master.open(sealed, purposeOf(kind, kid)))
              openedClaims.set(kid, key)
              claim.push({ ...generation, key })
            } else {
              const pair = openedSigning.get(kid) ?? (yield* openSigning(kid, sealed))
              openedSigning.set(kid, pair)
              signing.push({ ...pair, ...generation })
            }
          }
          ring.replace({ claim, signing, retired })
          return rows
        })
        const refresh = Effect.asVoid(load)

        /** Forgets what nothing alive was signed with: a claim key's pads, and the sealed secrets. */
        const forget = admin
          .transaction(
            Effect.gen(function* () {
              yield* admin.become("platform")
              for (const kind of PlatformKeyKind.literals) {
                const ended = yield* sql<{ kid: string }>`UPDATE shared.platform_keys
                  SET ended_at = now(), sealed = NULL
                  WHERE kind = ${kind} AND ended_at IS NULL
                    AND retired_at < now() - make_interval(secs => ${Duration.toSeconds(needed[kind])})
                  RETURNING kid`
                if (kind === "claim") {
                  for (const { kid } of ended) yield* sql`DELETE FROM shared.claim_keys WHERE kid = ${kid}`
                }
              }
            })
          )
          .pipe(orUnavailable)

        let tidyAt = 0
        const tidy = Effect.fnUntraced(function* (rows: Effect.Success<typeof load>) {
          const now = yield* Clock.currentTimeMillis
          const isDue = rows.some(
            ({ ended, kind, retired_at }) =>
              !ended &&
              retired_at !== null &&
              DateTime.toEpochMillis(retired_at) + Duration.toMillis(needed[kind]) < now
          )
          if (!isDue || now < tidyAt) return
          tidyAt = now + Duration.toMillis(TIDIED_EVERY)
          yield* forget
        })

        let failing = false
        const look = load.pipe(
          Effect.flatMap(tidy),
          Effect.tap(() =>
            Effect.sync(() => {
              failing = false
            })
          ),
          Effect.catchTags({
            // The next look will tell; until then what is known holds.
            DependencyUnavailable: () => Effect.void,
            WrongMasterKey: (error) => {
              if (failing) return Effect.void
              failing = true
              return Effect.logError(error.message)
            }
          }),
          Effect.catchDefect((defect) => Effect.logError("The platform's keys could not be read", defect))
        )

        const newSigningKey = Effect.gen(function* () {
          const { jwk, kid } = yield* Effect.promise(async () => {
            const { privateKey } = await generateKeyPair(ALGORITHM, { crv: "Ed25519", extractable: true })
            const jwk = await exportJWK(privateKey)
            return { jwk, kid: await calculateJwkThumbprint(jwk) }
          })
          return { kid, secret: Redacted.make(Buffer.from(JSON.stringify(jwk))) }
        })
        const newClaimKey = Effect.gen(function* () {
          const secret = Redacted.make(yield* random.randomBytes(32))
          return { kid: claimKeyId(secret), secret }
        })

        const ofSettings = Effect.fnUntraced(function* (kind: PlatformKeyKind) {
          if (kind === "claim") return [claimKeyId(options.claimKey)]
          const keys = yield* Effect.forEach(Redacted.value(options.signingKeys).keys, importSigningKey)
          return keys.map(({ kid }) => kid)
        })

        const rotate = Effect.fn("PlatformKeys.rotate")(function* (kind: PlatformKeyKind) {
          // Who does not have the other instances' master key must not make a key that they can't open.
          yield* refresh
          const { kid, secret } = yield* kind === "signing" ? newSigningKey : newClaimKey
          const sealed = yield* master.seal(secret, purposeOf(kind, kid))
          const first = yield* ofSettings(kind)
          return yield* admin
            .transaction(
              Effect.gen(function* () {
                yield* sql`SELECT pg_advisory_xact_lock(hashtext('agent-army keys'))`
                yield* admin.become("platform")
                const [times] = yield* sql<{ next: Date }>`
                  SELECT now() + make_interval(secs => ${Duration.toSeconds(KNOWN_BEFORE_ACTIVE)}) AS next`
                const activeFrom = PgTypes.timestamptz(times?.next ?? null)
                const known = yield* sql<{ kid: string; pending: boolean }>`
                  SELECT kid, active_from > now() AS pending FROM shared.platform_keys
                  WHERE kind = ${kind} ORDER BY active_from DESC`
                if (known.some(({ pending }) => pending)) {
                  return yield* new Conflict({
                    detail: "A rotation is under way: the next can begin in a few seconds"
                  })
                }
                // The first generation is that of the settings: from now on it has an end as well.
                if (known.length === 0) {
                  for (const kid of first) {
                    yield* sql`INSERT INTO shared.platform_keys (kind, kid, active_from) VALUES (${kind}, ${kid}, now())`
                  }
                }
                yield* sql`UPDATE shared.platform_keys SET retired_at = ${activeFrom}
                  WHERE kind = ${kind} AND retired_at IS NULL`
                yield* sql`INSERT INTO shared.platform_keys (kind, kid, sealed, active_from)
                  VALUES (${kind}, ${kid}, ${sealed}, ${activeFrom})`
                if (kind === "claim") {
                  const { inner, outer } = claimKeyPads(secret)
                  yield* sql`INSERT INTO shared.claim_keys (kid, inner_pad, outer_pad)
                    VALUES (${kid}, ${inner}, ${outer})`
                }
                const previous = known[0]?.kid ?? first[0] ?? ""
                yield* audit.recordIn(sql, "shared", {
                  action: kind === "signing" ? "signing_key.rotated" : "claim_key.rotated",
                  target: { type: `${kind}_key`, id: kid },
                  details: { previous_kid: previous }
                })
                return new RotatedKey({
                  rotated: kind,
                  kid,
                  previous_kid: previous,
                  active_from: DateTime.fromDateUnsafe(times?.next ?? new Date(0)),
                  rewrapped: 0
                })
              })
            )
            .pipe(orUnavailable)
        })

        return PlatformKeys.of({
          refresh,
          refreshSoon: yield* Effect.cachedWithTTL(Effect.ignore(refresh), POLLED_EVERY),
          poll: look.pipe(Effect.repeat(Schedule.spaced(POLLED_EVERY)), Effect.andThen(Effect.never)),
          rotate
        })
      })
    )
}
