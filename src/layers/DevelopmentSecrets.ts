import { Effect, FileSystem, Path, Redacted, Schema } from "effect"
import { createHmac, randomBytes, randomUUID } from "node:crypto"
import { exportJWK, generateKeyPair } from "jose"
import { SigningKeys } from "../domain/SigningKey.ts"

/** What a hosted installation is given by its settings, and development makes for itself once. */
const DevelopmentSecrets = Schema.Struct({
  operator_api_key: Schema.RedactedFromValue(Schema.String),
  token_signing_keys: Schema.RedactedFromValue(SigningKeys),
  tenant_claim_key: Schema.RedactedFromValue(Schema.Uint8ArrayFromBase64),
  secrets_master_key: Schema.optionalKey(Schema.RedactedFromValue(Schema.Uint8ArrayFromBase64)),
  database_passwords: Schema.Struct({
    app: Schema.RedactedFromValue(Schema.String),
    migrator: Schema.RedactedFromValue(Schema.String),
    backup: Schema.RedactedFromValue(Schema.String)
  })
})
export type DevelopmentSecrets = typeof DevelopmentSecrets.Type

const File = Schema.fromJsonString(DevelopmentSecrets)
const decode = Schema.decodeEffect(File)

/** A data directory from before there was one gets a key that follows from its others: two processes find the same. */
export const masterKeyOf = (secrets: DevelopmentSecrets): Redacted.Redacted<Uint8Array> =>
  secrets.secrets_master_key ??
  Redacted.make(
    createHmac("sha256", Redacted.value(secrets.tenant_claim_key)).update("SECRETS_MASTER_KEY").digest()
  )

const makeKeys = Effect.promise(async () => {
  const { privateKey } = await generateKeyPair("EdDSA", { crv: "Ed25519", extractable: true })
  const { crv, d, kty, x } = await exportJWK(privateKey)
  return { keys: [{ kty, crv, x, d }] }
})

/**
 * Reads the secrets of a data directory, or makes them: a file that only its owner can read. Of two processes that
 * make them at once, both end with the same.
 */
export const developmentSecrets = Effect.fn("developmentSecrets")(function* (dataDir: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(dataDir, "secrets.json")
  if (!(yield* fs.exists(file))) {
    const password = () => randomBytes(24).toString("base64url")
    const fresh = JSON.stringify(
      {
        operator_api_key: `aa_op_${randomBytes(32).toString("base64url")}`,
        token_signing_keys: yield* makeKeys,
        tenant_claim_key: randomBytes(32).toString("base64"),
        secrets_master_key: randomBytes(32).toString("base64"),
        database_passwords: { app: password(), migrator: password(), backup: password() }
      },
      undefined,
      2
    )
    yield* fs.makeDirectory(dataDir, { recursive: true })
    const draft = `${file}.${randomUUID()}`
    yield* fs.writeFileString(draft, fresh, { mode: 0o600 })
    // A link, unlike a rename, fails where the name is taken: who comes second reads what the first one made.
    yield* fs.link(draft, file).pipe(Effect.ignore)
    yield* fs.remove(draft)
  }
  return yield* Effect.flatMap(fs.readFileString(file), decode)
})
