import { z } from "zod";
import { CREDENTIAL_TYPES, NIL_UUID, PROVIDERS, type ProviderName, type SecretDocument, Uuid } from "../domain/credential.ts";
import { type CredentialError, fail, type Reason, type Violation } from "../domain/errors.ts";
import { credentialTypes, type EnumTable, providers } from "./convert.ts";

/** Reports the fault of a field from inside a zod transform. */
function refuse(ctx: z.RefinementCtx, type: string, message: string, where: Violation["in"] = "body"): never {
  ctx.addIssue({ code: "custom", message, params: { type, in: where } });
  return z.NEVER;
}

const missing = (ctx: z.RefinementCtx): never => refuse(ctx, "missing", "Field required");
const oneOf = (words: readonly string[]): string => `Input should be one of ${words.join(", ")}`;

function required<W extends string>(table: EnumTable<W>, words: readonly W[]) {
  return z.number().transform((value, ctx): W => (value === 0 ? missing(ctx) : (table.word(value) ?? refuse(ctx, "enum", oneOf(words)))));
}

const NAME_MAX = 255;

/** Longest folder of an SFTP test, in characters. */
const TEST_PATH_MAX = 1_024;

/** Faults of a name; control characters are refused because neither PostgreSQL's text (NUL) nor a terminal takes them. */
export function checkedName(name: string, ctx: z.RefinementCtx): string {
  if (name === "") return refuse(ctx, "string_too_short", "String should have at least 1 character");
  if ([...name].length > NAME_MAX) return refuse(ctx, "string_too_long", `String should have at most ${NAME_MAX} characters`);
  return /\p{Cc}/u.test(name) ? refuse(ctx, "string_pattern_mismatch", "String should not contain control characters") : name;
}

function uuid(ctx: z.RefinementCtx, text: string, where: Violation["in"]): string {
  const parsed = Uuid.safeParse(text);
  return parsed.success ? parsed.data : refuse(ctx, "uuid_parsing", "Input should be a valid UUID", where);
}

/** Why an object cannot be kept as it is; undefined where it can. */
function structFault(value: unknown): "finite_number" | "forbidden_key" | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? undefined : "finite_number";
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, member] of Object.entries(value)) {
    if (!Array.isArray(value) && (key in Object.prototype || key === "prototype")) return "forbidden_key";
    const fault = structFault(member);
    if (fault) return fault;
  }
  return undefined;
}

const STRUCT_FAULTS = {
  finite_number: "Numbers should be finite",
  forbidden_key: "Keys should not be named like members of an object's prototype",
} as const;

/** `credential_id`: a UUID, read as lower case; a path parameter over REST. */
export const credentialId = z.string().transform((text, ctx): string => uuid(ctx, text, "path"));

/** A required UUID in the body. The nil UUID names nobody; the trail of operators is kept under it. */
export const bodyUuid = z.string().transform((text, ctx): string => {
  if (text === "") return missing(ctx);
  const id = uuid(ctx, text, "body");
  return id === NIL_UUID ? refuse(ctx, "uuid_parsing", "Input should not be the nil UUID") : id;
});

/** An optional UUID in the body, by the same rule; null where unset. */
export const optionalBodyUuid = z.string().optional().transform((text, ctx): string | null => {
  if (text === undefined) return null;
  const id = uuid(ctx, text, "body");
  return id === NIL_UUID ? refuse(ctx, "uuid_parsing", "Input should not be the nil UUID") : id;
});

/** The required provider of a new credential. */
export const provider = required(providers, PROVIDERS);

/** The provider that a path names. */
export const pathProvider = z.number().transform((value, ctx): ProviderName => providers.word(value) ?? refuse(ctx, "enum", oneOf(PROVIDERS), "path"));

/** The optional provider that a list is filtered by; a path parameter over REST. */
export const providerFilter = z
  .number()
  .transform((value, ctx): ProviderName | null => (value === 0 ? null : (providers.word(value) ?? refuse(ctx, "enum", oneOf(PROVIDERS), "path"))));

/** An optional word of an enum; undefined where unset. */
export const optionalWord = <W extends string>(table: EnumTable<W>) =>
  z.number().transform((value, ctx): W | undefined => (value === 0 ? undefined : (table.word(value) ?? refuse(ctx, "enum", "Input should be a known value"))));

/** The required credential type. */
export const credentialType = required(credentialTypes, CREDENTIAL_TYPES);

/** The required secret: present, with finite numbers and without keys that JavaScript objects treat specially. */
export const credentials = z.custom<SecretDocument | undefined>().transform((document, ctx): SecretDocument => {
  if (document === undefined) return missing(ctx);
  const fault = structFault(document);
  return fault ? refuse(ctx, fault, STRUCT_FAULTS[fault]) : document;
});

/** An optional name: 1 to 255 characters (code points), none of them a control character; null where unset. */
export const optionalName = z.string().optional().transform((name, ctx): string | null => (name === undefined ? null : checkedName(name, ctx)));

/** A required name, by the same rule. */
export const requiredName = z.string().transform((name, ctx): string => (name === "" ? missing(ctx) : checkedName(name, ctx)));

/** An optional entity tag: the characters that RFC 9110 section 8.8.3 allows in one; null where empty. */
export const optionalEtag = z.string().transform((etag, ctx): string | null => {
  if (etag === "") return null;
  return /^[\x21\x23-\x7e]{1,64}$/.test(etag) ? etag : refuse(ctx, "etag", "Input should be an etag of this service");
});

/** A required text that is passed on as it is. */
export const requiredText = z.string().transform((text, ctx): string => (text === "" ? missing(ctx) : text));

/** Reports, from a rule about several fields, that one of them is missing. */
export const reportMissing = (ctx: z.RefinementCtx, field: string): void => ctx.addIssue({ code: "custom", message: "Field required", path: [field], params: { type: "missing", in: "body" } });

/** How an SFTP test logs in; `password` is another word for `user_password`. */
export const sftpAuthType = z.string().transform((text, ctx): "user_password" | "key_file" => {
  if (text === "user_password" || text === "key_file") return text;
  if (text === "password") return "user_password";
  return text === "" ? missing(ctx) : refuse(ctx, "enum", "Input should be 'user_password', 'password' or 'key_file'");
});

/** Folder of an SFTP test; `/` where unset. */
export const testPath = z.string().optional().transform((path = "/", ctx): string => {
  if (path === "" || path.length > TEST_PATH_MAX) return refuse(ctx, "string_too_long", `String should have 1 to ${TEST_PATH_MAX} characters`);
  return /\p{Cc}/u.test(path) ? refuse(ctx, "string_pattern_mismatch", "String should not contain control characters") : path;
});

/** An optional time in the future; null where unset. */
export const optionalFuture = z.custom<Date>().optional().transform((time, ctx): Date | null => {
  if (time === undefined) return null;
  return time.getTime() > Date.now() ? time : refuse(ctx, "datetime_future", "Input should be in the future");
});

/** The required id of a master key. */
export const masterKeyId = z.string().transform((text, ctx): string => {
  if (text === "") return missing(ctx);
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/.test(text) ? text : refuse(ctx, "string_pattern_mismatch", "Input should be an id of a master key: up to 32 of A-Z a-z 0-9 . _ -");
});

/** An optional limit of rows in a second, from 1; null where unset. */
export const optionalRate = z.number().optional().transform((rate, ctx): number | null => {
  if (rate === undefined) return null;
  return rate >= 1 ? rate : refuse(ctx, "greater_than_equal", "Input should be at least 1");
});

/** A required time. */
export const requiredTime = z.custom<Date>().optional().transform((time, ctx): Date => time ?? missing(ctx));

/** One to a hundred check values of keys, 32 bytes each. */
export const checkValues = z.array(z.custom<Buffer>()).transform((values, ctx): Buffer[] => {
  if (values.length === 0) return missing(ctx);
  return values.length <= 100 && values.every(({ length }) => length === 32) ? values : refuse(ctx, "value_error", "Input should be up to 100 values of 32 bytes");
});

/** `service_account_id` or `key_id`: a UUID, read as lower case; a path parameter over REST. */
export const pathUuid = z.string().transform((text, ctx): string => uuid(ctx, text, "path"));

/** The organization that an operator's request names; null where empty. */
export const organizationId = z.string().transform((text, ctx): string | null => {
  if (text === "") return null;
  const id = uuid(ctx, text, "body");
  return id === NIL_UUID ? refuse(ctx, "uuid_parsing", "Input should not be the nil UUID") : id;
});

const DESCRIPTION_MAX = 1_024;

/** An optional description, at most 1,024 characters, none of them a control character but line feeds; undefined where unset. */
export const optionalDescription = z.string().optional().transform((text, ctx): string | undefined => {
  if (text !== undefined && [...text].length > DESCRIPTION_MAX) return refuse(ctx, "string_too_long", `String should have at most ${DESCRIPTION_MAX} characters`);
  return text !== undefined && /[^\P{Cc}\n]/u.test(text) ? refuse(ctx, "string_pattern_mismatch", "String should not contain control characters") : text;
});

const PAGE_DEFAULT = 100;
const PAGE_MAX = 1_000;

/** How many entries of a list are wanted, 1 to 1,000; 100 where unset. */
export const pageLimit = z.number().transform((limit, ctx): number => (limit <= PAGE_MAX ? limit || PAGE_DEFAULT : refuse(ctx, "less_than_equal", `Input should be at most ${PAGE_MAX}`)));

/** How many entries of a list are skipped. */
export const pageOffset = z.number().transform((offset, ctx): number => (offset <= 1_000_000 ? offset : refuse(ctx, "less_than_equal", "Input should be at most 1000000")));

/** An optional time span in seconds; 0 where unset. */
export const optionalSeconds = (maximum: number) =>
  z.number().optional().transform((seconds = 0, ctx): number => (seconds <= maximum ? seconds : refuse(ctx, "less_than_equal", `Input should be at most ${maximum}`)));

/** Distinct providers. */
export const providerList = z.array(z.number().transform((value, ctx): ProviderName => providers.word(value) ?? refuse(ctx, "enum", oneOf(PROVIDERS)))).transform((list) => [...new Set(list)]);

const IDS_MAX = 256;

/** Distinct UUIDs, at most 256. */
export const uuidList = z.array(z.string().transform((text, ctx): string => uuid(ctx, text, "body"))).transform((list, ctx): string[] => {
  const distinct = [...new Set(list)];
  return distinct.length <= IDS_MAX ? distinct : refuse(ctx, "too_long", `List should have at most ${IDS_MAX} items`);
});

/** An optional `credential_id` from a query string; null where empty. */
export const optionalCredentialId = z.string().transform((text, ctx): string | null => (text === "" ? null : uuid(ctx, text, "path")));

const SCOPES_MAX = 50;
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]{1,256}$/;

/** Distinct scopes (RFC 6749 section 3.3), at most 50 of at most 256 characters; one text may hold several, with spaces between. */
export const scopes = z.array(z.string()).transform((texts, ctx): string[] => {
  const distinct = [...new Set(texts.flatMap((text) => text.split(" ")).filter((scope) => scope !== ""))];
  return distinct.length <= SCOPES_MAX && distinct.every((scope) => SCOPE.test(scope)) ? distinct : refuse(ctx, "value_error", `Input should be at most ${SCOPES_MAX} scopes of at most 256 printable characters`);
});

/** An optional text from a provider; what is too long to be one is empty. */
export const answerText = (longest: number) => z.string().transform((text): string => (text.length <= longest ? text : ""));

/** The browser that asks, where there is one. */
export const browser = z.object({ wantsPage: z.boolean(), kept: z.string() }).optional();

const PATH_REASONS: ReadonlyMap<unknown, Reason> = new Map([
  ["credential_id", "INVALID_CREDENTIAL_ID"], ["provider", "INVALID_PROVIDER"], ["service_account_id", "INVALID_SERVICE_ACCOUNT_ID"], ["key_id", "INVALID_KEY_ID"],
] as const);

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function toViolation({ path, message, ...issue }: z.core.$ZodIssue): Violation {
  const { type, in: where } = ("params" in issue && issue.params ? issue.params : { type: "value_error", in: "body" }) as Pick<Violation, "type" | "in">;
  return { in: where, path: path.map((part) => (typeof part === "number" ? part : snake(String(part)))), type, message };
}

const covers = (outer: Violation, inner: Violation): boolean => outer.path.every((part, i) => inner.path[i] === part);

/** What REST found, and what was found here, except where REST has said something of the same field or of a part of it. */
function merged(rest: readonly Violation[], own: readonly Violation[]): Violation[] {
  return [...rest, ...own.filter((fault) => !rest.some((known) => known.in === fault.in && (covers(known, fault) || covers(fault, known))))];
}

/** The error for faults of a request: those of the path come before those of the body. */
function refusal(faults: readonly Violation[]): CredentialError {
  const path = faults.find((fault) => fault.in === "path");
  if (!path) return fail("INVALID_REQUEST", { violations: faults });
  return fail(PATH_REASONS.get(path.path[0]) ?? "INVALID_REQUEST", { violations: [path] });
}

/** The fault of bytes that are no message of the expected type. */
export const MALFORMED: Violation = { in: "body", path: [], type: "message", message: "Request should be a valid protobuf message" };

/** The fault of a Struct with a key that was lost in reading it. */
export const PROTOTYPE_KEY: Violation = { in: "body", path: ["credentials"], type: "forbidden_key", message: STRUCT_FAULTS.forbidden_key };

/**
 * Turns a request into the input of its use case, which can no longer be malformed. Throws INVALID_CREDENTIAL_ID,
 * INVALID_PROVIDER or INVALID_REQUEST with every fault, those that the REST adapter reported included.
 */
export function parseRequest<S extends z.ZodType>(schema: S, request: z.input<S>, reported: readonly Violation[]): z.output<S> {
  const parsed = schema.safeParse(request);
  if (parsed.success && reported.length === 0) return parsed.data;
  const faults = merged(reported, parsed.success ? [] : parsed.error.issues.map(toViolation));
  if (faults.length > 0 || !parsed.success) throw refusal(faults);
  return parsed.data;
}

/** The error for a request that could not be read at all. */
export const unreadable = (reported: readonly Violation[]): CredentialError => refusal(merged(reported, [MALFORMED]));
