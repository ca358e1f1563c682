import { Client, type ClientReadableStream, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { type CredentialEvent, CredentialEventKind, CredentialServiceService, WatchCredentialsResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { detailsOf } from "./grpc.ts";

/** Short times, so that what takes seconds in production takes tenths of one here. */
export const QUICK = { CREDENTIALS_WATCH_POLL_MS: "20", CREDENTIALS_WATCH_HEARTBEAT_MS: "200", CREDENTIALS_WATCH_REAUTHORIZE_MS: "200" } as const;

/** Someone who watches: what was told so far, and how it ended. */
export interface Watch {
  readonly messages: WatchCredentialsResponse[];
  /** Kinds of everything but bookmarks, in order, as short words. */
  told(): string[];
  events(): CredentialEvent[];
  /** The position of the last message. */
  position(): string;
  /** Waits until that holds; the test's own time limit bounds it. Throws where the stream ends before. */
  until(done: (watch: Watch) => boolean): Promise<void>;
  /** Waits for a bookmark that was sent after now. */
  bookmarked(): Promise<void>;
  /** Why it ended: a reason, or a number of a status. */
  readonly ended: Promise<string>;
  readonly stream: ClientReadableStream<WatchCredentialsResponse>;
  cancel(): void;
}

/** A client that watches with a token; without `client` it has a connection of its own. */
export function watch(target: string | Client, token: string, position = ""): Watch {
  const client = typeof target === "string" ? new Client(target, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }) : target;
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const { path, requestSerialize, responseDeserialize } = CredentialServiceService.watchCredentials;
  const stream = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { position }, metadata);
  const messages: WatchCredentialsResponse[] = [];
  let over: string | undefined;
  const wakes = new Set<() => void>();
  const wake = () => {
    for (const each of wakes) each();
    wakes.clear();
  };
  stream.on("data", (message: WatchCredentialsResponse) => {
    messages.push(message);
    wake();
  });
  const ended = new Promise<string>((resolve) => {
    stream.on("error", (error: ServiceError) => {
      over = detailsOf(error.metadata).reason ?? `status ${error.code}`;
      if (typeof target === "string") client.close();
      resolve(over);
      wake();
    });
  });
  const self: Watch = {
    messages,
    ended,
    stream,
    events: () => messages.flatMap(({ message }) => (message?.$case === "event" ? [message.value] : [])),
    told: () => messages.flatMap(({ message }) => (message?.$case === "event" ? [kindOf(message.value)] : message?.$case === "accessChanged" ? ["access_changed"] : [])),
    position: () => messages.at(-1)?.position ?? "",
    async until(done) {
      while (!done(self)) {
        if (over !== undefined) throw new Error(`the watch ended with ${over}`);
        await new Promise<void>((resolve) => wakes.add(resolve));
      }
    },
    bookmarked() {
      const [count, since] = [messages.length, Date.now()];
      return self.until(() => messages.slice(count).some(({ message }) => message?.$case === "bookmark" && (message.value.asOf?.getTime() ?? 0) > since));
    },
    cancel: () => stream.cancel(),
  };
  return self;
}

const KINDS = new Map(Object.entries(CredentialEventKind).map(([name, number]) => [number as number, name.replace("CREDENTIAL_EVENT_KIND_", "").toLowerCase()]));

/** The kind of an event as a short word. */
export const kindOf = ({ kind }: CredentialEvent): string => KINDS.get(kind) ?? String(kind);

/** Every byte that a stream told until it was up to date, and why it ended where it ended before. */
export function heard(stream: ClientReadableStream<Buffer>): Promise<{ readonly reason: string; readonly message: string; readonly bytes: Buffer }> {
  const told: Buffer[] = [];
  return new Promise((resolve) => {
    stream.on("data", (bytes: Buffer) => {
      told.push(bytes);
      if (WatchCredentialsResponse.decode(bytes).message?.$case !== "bookmark") return;
      resolve({ reason: "OK", message: "", bytes: Buffer.concat(told) });
      stream.cancel();
    });
    stream.on("error", ({ code, details, metadata }: ServiceError) => {
      resolve({ reason: detailsOf(metadata).reason ?? `status ${code}`, message: details, bytes: Buffer.concat([...told, Buffer.from(JSON.stringify(metadata.toJSON()))]) });
    });
  });
}
