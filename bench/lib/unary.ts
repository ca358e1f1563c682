import type { Client, Metadata } from "@grpc/grpc-js";

/** Path of the credential service's methods. */
export const CREDENTIALS = "/flow.credentials.v1.CredentialService/";

/** Calls a method of the credential service with a message that is encoded already; rejects with the call's error. */
export function unary<T>(client: Client, method: string, message: Buffer, metadata: Metadata, decode: (bytes: Buffer) => T): Promise<T> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(CREDENTIALS + method, (bytes: Buffer) => bytes, decode, message, metadata, { deadline: Date.now() + 20_000 }, (error, response) => (error || response === undefined ? reject(error ?? new Error("no answer")) : resolve(response)));
  });
}
