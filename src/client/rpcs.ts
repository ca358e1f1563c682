import { type ClientUnaryCall, Metadata, type ServiceError } from "@grpc/grpc-js";
import { fromFailedCall } from "./error.ts";

/** The request of an RPC, and what it answers. */
type RequestOf<R> = R extends { readonly requestSerialize: (value: infer Request) => Buffer } ? Request : never;
type ResponseOf<R> = R extends { readonly responseDeserialize: (bytes: Buffer) => infer Response } ? Response : never;

/** The RPCs of a service as promises. Every rejection is a CredentialClientError. Nothing is tried twice. */
export type Rpcs<S> = { readonly [N in keyof S]: (request: RequestOf<S[N]>) => Promise<ResponseOf<S[N]>> };

/** A token, or where the current one is had for each call: work that takes long outlives the first one. */
export type TokenSource = string | (() => Promise<string>);

type Start = (request: unknown, metadata: Metadata, options: { deadline: number }, done: (error: ServiceError | null, response: unknown) => void) => ClientUnaryCall;

/** One promise for each RPC that a service defines. */
export function rpcsOf<S extends object>(service: S, client: object, { token, deadlineMs }: { readonly token: TokenSource; readonly deadlineMs: number }): Rpcs<S> {
  const call = (name: string) => async (request: unknown) => {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${typeof token === "string" ? token : await token()}`);
    return new Promise((resolve, reject) => {
      const start = (client as Readonly<Record<string, Start>>)[name] as Start;
      start.call(client, request, metadata, { deadline: Date.now() + deadlineMs }, (error, response) => (error ? reject(fromFailedCall(error, undefined)) : resolve(response)));
    });
  };
  return Object.fromEntries(Object.keys(service).map((name) => [name, call(name)])) as unknown as Rpcs<S>;
}
