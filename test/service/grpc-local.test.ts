import { status } from "@grpc/grpc-js";
import { describe, expect, it, vi } from "vitest";
import { GetCredentialRequest, GetCredentialResponse } from "../../gen/flow/credentials/v1/credential_service.ts";
import { Status } from "../../gen/google/rpc/status.ts";
import { ErrorInfo } from "../../gen/google/rpc/error_details.ts";
import { LocalStatus } from "../../src/grpc/local.ts";
import { metadataOf, record, RPCS, startGrpc } from "../support/grpc.ts";

type Service = Awaited<ReturnType<typeof startGrpc>>["service"];

const { path } = RPCS.getCredential;
const requestFor = (credentialId: string) => GetCredentialRequest.encode({ credentialId }).finish();
const request = requestFor(record().id);

/** What a call without the network gave: its response, or the code and the reason of its status. */
async function asked({ local }: Service, more: Partial<Parameters<Service["local"]["call"]>[0]> = {}) {
  try {
    return GetCredentialResponse.decode(await local.call({ path, request, metadata: metadataOf("user"), ...more }));
  } catch (error) {
    if (!(error instanceof LocalStatus)) throw error;
    const [details] = error.metadata.get("grpc-status-details-bin");
    const [info] = Buffer.isBuffer(details) ? Status.decode(details).details : [];
    return [status[error.code], info && ErrorInfo.decode(info.value).reason];
  }
}

/** A use case that says when it has begun, and waits until it is let go or cancelled. */
function held() {
  const [begun, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let running = 0;
  const getCredential = async (grant: { call: { signal: AbortSignal } }) => {
    running += 1;
    begun.resolve();
    grant.call.signal.addEventListener("abort", () => released.resolve(), { once: true });
    await released.promise;
    return record();
  };
  return { getCredential, begun: begun.promise, release: () => released.resolve(), running: () => running };
}

describe("a call from inside the process", () => {
  it("is authenticated, admitted, read, answered and told of as one over the network", async () => {
    await using grpc = await startGrpc({ vault: { getCredential: async () => record() } });
    expect(await asked(grpc.service)).toMatchObject({ credential: { id: expect.any(String) } });
    // What went well is told of once it has been answered.
    await vi.waitFor(() => expect(grpc.calls()).toHaveLength(1));
    expect(await asked(grpc.service, { metadata: metadataOf(null) })).toEqual(["UNAUTHENTICATED", "UNAUTHENTICATED"]);
    expect(await asked(grpc.service, { metadata: metadataOf("operator") })).toEqual(["PERMISSION_DENIED", expect.any(String)]);
    expect(await asked(grpc.service, { request: requestFor("no-id") })).toEqual(["INVALID_ARGUMENT", expect.any(String)]);
    expect(await asked(grpc.service, { request: Buffer.from([0xff]) })).toEqual(["INVALID_ARGUMENT", expect.any(String)]);
    expect(grpc.calls().map(({ code }) => code)).toEqual(["OK", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]);
    expect(grpc.events.filter(({ outcome }) => outcome === "refused").length).toBeGreaterThan(0);
  });

  it("has the limits of one over the network", async () => {
    await using grpc = await startGrpc({ options: { maxMetadataBytes: 1_024, maxMessageBytes: 64 } });
    expect(await asked(grpc.service, { metadata: metadataOf("user", { "x-flow-id": "f".repeat(1_024) }) })).toEqual(["INVALID_ARGUMENT", "METADATA_INVALID"]);
    expect(await asked(grpc.service, { request: Buffer.alloc(65) })).toEqual(["RESOURCE_EXHAUSTED", undefined]);
    expect(await asked(grpc.service, { request: Buffer.alloc(65), metadata: metadataOf(null) })).toEqual(["UNAUTHENTICATED", "UNAUTHENTICATED"]);
    expect(await asked(grpc.service, { path: "/flow.none/Get" })).toEqual(["UNIMPLEMENTED", undefined]);
  });

  it("ends at its deadline, and where nobody waits for it any more", async () => {
    const late = held();
    await using slow = await startGrpc({ vault: late, options: { deadlineMs: 50 } });
    expect(await asked(slow.service)).toEqual(["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
    const left = held();
    await using grpc = await startGrpc({ vault: left });
    const gone = new AbortController();
    const pending = asked(grpc.service, { signal: gone.signal });
    await left.begun;
    gone.abort();
    expect(await pending).toEqual(["CANCELLED", "CANCELLED"]);
    expect(await asked(grpc.service, { signal: gone.signal })).toEqual(["CANCELLED", "CANCELLED"]);
  });

  it("waits for its turn where many are under way, and leaves the line at its deadline or where nobody waits for it", async () => {
    const work = held();
    await using grpc = await startGrpc({ vault: work, options: { maxConcurrentStreams: 1, deadlineMs: 1_000 } });
    const gone = new AbortController();
    const first = asked(grpc.service);
    const [second, left] = [asked(grpc.service), asked(grpc.service, { signal: gone.signal })];
    await work.begun;
    gone.abort();
    expect(await left).toEqual(["CANCELLED", undefined]);
    expect(work.running()).toBe(1);
    work.release();
    expect(await Promise.all([first, second])).toMatchObject([{ credential: {} }, { credential: {} }]);
  });

  it("waits for its turn within its deadline, and not beside it", async () => {
    const getCredential = () => new Promise<never>(() => {});
    await using grpc = await startGrpc({ vault: { getCredential }, options: { maxConcurrentStreams: 1, deadlineMs: 600 } });
    const first = asked(grpc.service);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const [behind, last] = [asked(grpc.service), asked(grpc.service)];
    expect(await first).toEqual(["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
    // Half of its deadline is left to the one behind: a call that begins now ends after it.
    await using other = await startGrpc({ vault: { getCredential }, options: { deadlineMs: 600 } });
    expect(await Promise.race([behind.then(() => "behind"), asked(other.service).then(() => "now")])).toBe("behind");
    const codes = (await Promise.all([behind, last])).map((outcome) => (Array.isArray(outcome) ? outcome[0] : "OK"));
    expect(codes).toEqual(["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
  });

  it("is waited for by a stop, cut after the grace time, and refused afterwards", async () => {
    const work = held();
    await using grpc = await startGrpc({ vault: work });
    const pending = asked(grpc.service);
    await work.begun;
    const stopped = grpc.service.stop();
    expect(grpc.service.local.open).toBe(false);
    expect(await asked(grpc.service)).toEqual(["UNAVAILABLE", "SHUTTING_DOWN"]);
    work.release();
    expect(await pending).toMatchObject({ credential: {} });
    await stopped;
    const never = held();
    await using cut = await startGrpc({ vault: never, options: { shutdownGraceMs: 50 } });
    const hanging = asked(cut.service);
    await never.begun;
    await cut.service.stop();
    expect(await hanging).toEqual(["CANCELLED", "CANCELLED"]);
  });
});
