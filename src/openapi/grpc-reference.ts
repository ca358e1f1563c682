import type { DescEnum, DescField, DescFile, DescMessage, DescMethod, DescService, FileRegistry } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { ACTIONS } from "../domain/access.ts";
import { REASONS } from "../domain/errors.ts";
import { compileRoutes } from "../rest/routes.ts";
import { wordsOf } from "./comments.ts";

/** The package that is described. */
const PACKAGE = "flow.credentials.v1";

const ABOUT = `# gRPC reference

Made by \`npm run gen\` from the protos in [\`proto/\`](../proto/flow/credentials/v1) and the table of errors; change those instead. What REST offers of
it is at \`/docs\` of a running service. With server reflection (on in development) any gRPC tool can call everything here; the README shows how.

| metadata | meaning |
|---|---|
| \`authorization\` | \`Bearer\` and a token of the platform's issuer, or an API key of a service account; or the key alone as \`x-api-key\` |
| \`x-request-id\` | a ULID under which the call is logged and recorded; one is made where none is given, and the response carries it |
| \`x-flow-id\`, \`x-run-id\` | the flow and its run, for the audit record: at most 128 printable ASCII characters |
| \`idempotency-key\` | for writes: at most 255 printable ASCII characters |
| \`traceparent\` | the trace that the call belongs to (W3C Trace Context) |
`;

/** Text inside a cell of a table. */
const cell = (text: string): string => text.replaceAll("|", "\\|").replace(/\n+/g, "<br>");
const anchor = (name: string): string => name.toLowerCase().replace(/[^a-z0-9-]/g, "");
const link = (name: string): string => `[${name}](#${anchor(name)})`;

/** A type as the protos write it; a link where it is described here. */
function typeOf(field: DescField): string {
  if (field.fieldKind === "list") return `repeated ${elementOf(field.listKind, field)}`;
  if (field.fieldKind === "map") return `map<${scalar(field.mapKey)}, ${elementOf(field.mapKind, field)}>`;
  return elementOf(field.fieldKind, field);
}

function elementOf(kind: "message" | "enum" | "scalar", field: { readonly message?: DescMessage | undefined; readonly enum?: DescEnum | undefined; readonly scalar?: ScalarType | undefined }): string {
  const known = kind === "message" ? field.message : kind === "enum" ? field.enum : undefined;
  if (known === undefined) return scalar(field.scalar ?? ScalarType.STRING);
  return known.file.proto.package === PACKAGE ? link(known.name) : `\`${known.typeName}\``;
}

const scalar = (type: ScalarType): string => `\`${(ScalarType[type] ?? "").toLowerCase()}\``;

function fieldRow(field: DescField): string {
  const { text, required, secret } = wordsOf(field);
  const marks = [...(required ? ["required"] : []), ...(secret ? ["secret"] : []), ...(field.oneof ? [`one of \`${field.oneof.name}\``] : [])];
  return `| \`${field.name}\` | ${cell(typeOf(field))} | ${cell(marks.length > 0 ? `*${marks.join(", ")}.* ${text}` : text)} |`;
}

const message = (desc: DescMessage): string => {
  const head = `### ${desc.name}\n\n${wordsOf(desc).text}\n`;
  return desc.fields.length === 0 ? head : `${head}\n| field | type | meaning |\n|---|---|---|\n${desc.fields.map(fieldRow).join("\n")}\n`;
};

const enumeration = (desc: DescEnum): string =>
  `### ${desc.name}\n\n${wordsOf(desc).text}\n\n| value | number | meaning |\n|---|---|---|\n${desc.values.map((value) => `| \`${value.name}\` | ${value.number} | ${cell(wordsOf(value).text)} |`).join("\n")}\n`;

/** RPCs that ask for no identity: what their request brings says in whose name they act. */
const OPEN: readonly string[] = ["CompleteAuthorization"];

/** Which kinds of caller an RPC is for. Throws for one that no action is for. */
function callersOf(method: DescMethod): string {
  if (OPEN.includes(method.name)) return "anybody";
  const action = method.name.replace(/(?!^)([A-Z])/g, "_$1").toLowerCase();
  if (!Object.hasOwn(ACTIONS, action)) throw new Error(`${method.name} is no action`);
  return ACTIONS[action as keyof typeof ACTIONS].map((kind) => kind.replaceAll("_", " ")).join(", ");
}

function rpc(method: DescMethod, paths: readonly string[]): string {
  const [takes, gives] = [method.methodKind.startsWith("client") || method.methodKind.startsWith("bidi"), method.methodKind.startsWith("server") || method.methodKind.startsWith("bidi")].map((streams) => (streams ? "a stream of " : ""));
  const rest = paths.length === 0 ? "" : `; over REST ${paths.map((path) => `\`${path}\``).join(", ")}`;
  return `### ${method.name}\n\n${wordsOf(method).text}\n\nTakes ${takes}${link(method.input.name)}, gives ${gives}${link(method.output.name)}. Callers: ${callersOf(method)}${rest}.\n`;
}

const service = (desc: DescService, paths: ReadonlyMap<string, readonly string[]>): string =>
  `## ${desc.name}\n\n\`${desc.typeName}\`\n\n${wordsOf(desc).text}\n\n${desc.methods.map((method) => rpc(method, paths.get(`${desc.typeName}/${method.name}`) ?? [])).join("\n")}`;

function errors(): string {
  const rows = Object.entries(REASONS).map(([reason, { grpc, http, message: text }]) => `| \`${reason}\` | ${grpc} | ${http} | ${cell(text)} |`);
  return `## Errors\n\nEvery refusal is a status with a \`google.rpc.ErrorInfo\` in its details: \`reason\` is one of these words, \`domain\` is \`credentials.flow\`. Where fields are at fault a \`google.rpc.BadRequest\` names them.\n\n| reason | gRPC | HTTP | sentence |\n|---|---|---|---|\n${rows.join("\n")}\n`;
}

/** REST's paths of every RPC, by its full name. */
function pathsOf(registry: FileRegistry): ReadonlyMap<string, readonly string[]> {
  const paths = new Map<string, string[]>();
  for (const { template, routes } of compileRoutes(registry, [])) {
    for (const { verb, method } of routes.values()) {
      const name = `${method.parent.typeName}/${method.name}`;
      paths.set(name, [...(paths.get(name) ?? []), `${verb} ${template}`]);
    }
  }
  return paths;
}

/**
 * Describes every service, message and error in Markdown. Texts are the protos' own comments. Throws where something has none.
 *
 * @param registry descriptors with their comments
 */
export function describeGrpc(registry: FileRegistry): string {
  const files = [...registry.files].filter((file: DescFile) => file.proto.package === PACKAGE).sort((a, b) => (a.name < b.name ? -1 : 1));
  const services = files.flatMap((file) => file.services);
  const [messages, enums] = [files.flatMap((file) => file.messages), files.flatMap((file) => file.enums)];
  const named = <T extends { readonly name: string }>(list: readonly T[]) => [...list].sort((a, b) => (a.name < b.name ? -1 : 1));
  const paths = pathsOf(registry);
  const contents = services.map(({ name, methods }) => `- ${link(name)}: ${methods.map((method) => link(method.name)).join(", ")}`);
  return [
    ABOUT,
    `${contents.join("\n")}\n- [Messages](#messages), [Enumerations](#enumerations), [Errors](#errors)\n`,
    ...services.map((desc) => service(desc, paths)),
    `## Messages\n\n${named(messages).map(message).join("\n")}`,
    `## Enumerations\n\n${named(enums).map(enumeration).join("\n")}`,
    errors(),
  ].join("\n");
}
