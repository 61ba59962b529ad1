import { HttpApi, OpenApi } from "effect/http-api"
import manifest from "../../package.json" with { type: "json" }
import { AnthropicApi } from "./AnthropicApi.ts"
import { AuditApi } from "./AuditApi.ts"
import { AuthApi, SignInApi } from "./AuthApi.ts"
import { completeDocument } from "./Document.ts"
import { EventsApi } from "./EventsApi.ts"
import { KeysApi } from "./KeysApi.ts"
import { LlmApi } from "./LlmApi.ts"
import { OpenAiApi } from "./OpenAiApi.ts"
import { Problems } from "./Problems.ts"
import { RecordsApi } from "./RecordsApi.ts"
import { SecretsApi } from "./SecretsApi.ts"
import { StateApi } from "./StateApi.ts"
import { SystemApi } from "./SystemApi.ts"
import { TenantsApi } from "./TenantsApi.ts"
import { UsersApi } from "./UsersApi.ts"

/** The whole contract, as data: the server, the OpenAPI document and the typed client are all made from it. */
export class Api extends HttpApi.make("agent-army")
  .add(TenantsApi)
  .add(SignInApi)
  .add(AuthApi)
  .add(UsersApi)
  .add(RecordsApi)
  .add(StateApi)
  .add(SecretsApi)
  .add(AuditApi)
  .add(EventsApi)
  .add(LlmApi)
  .add(OpenAiApi)
  .add(AnthropicApi)
  .add(KeysApi)
  .add(SystemApi)
  // Every field that is wrong, not only the first.
  .annotate(HttpApi.ParseOptions, { errors: "all" })
  // Last, and so outermost: whatever fails inside leaves as a problem.
  .middleware(Problems)
  .annotateMerge(
    OpenApi.annotations({
      title: "agent-army",
      version: manifest.version,
      description: "The platform that companies run their AI agents on, each as a tenant of its own.",
      license: { name: "MIT", url: "https://spdx.org/licenses/MIT.html" },
      transform: completeDocument
    })
  ) {}
