import type { Socket } from "node:net";
import { listen, type Scripted } from "./hostile-tcp.ts";

/** A message of a server: its letter, its length, its body (PostgreSQL's manual, "Message Formats"). */
export function message(letter: string, body: Buffer | string = ""): Buffer {
  const content = Buffer.from(body);
  const head = Buffer.alloc(5);
  head.write(letter, 0, "latin1");
  head.writeUInt32BE(4 + content.length, 1);
  return Buffer.concat([head, content]);
}

/** A message whose length is a lie. */
export function lengthLie(letter: string, length: number): Buffer {
  const head = message(letter);
  head.writeUInt32BE(length, 1);
  return head;
}

/** A question or answer of the login. */
export function login(code: number, data: Buffer | string = ""): Buffer {
  const number = Buffer.alloc(4);
  number.writeUInt32BE(code);
  return message("R", Buffer.concat([number, Buffer.from(data)]));
}

export const OK = login(0);
export const READY = message("Z", "I");
export const SCRAM = login(10, "SCRAM-SHA-256\0\0");

/** An error as a server reports it. */
export const refusal = (state: string, text = "canary-of-the-server", routine = "Somewhere"): Buffer =>
  message("E", `SFATAL\0VFATAL\0C${state}\0M${text}\0R${routine}\0\0`);

/** One row with one column of type integer. */
export function rowOf(value: string): Buffer {
  const column = Buffer.concat([Buffer.from([0, 1]), Buffer.from("one\0"), Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0])]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(value.length);
  const data = Buffer.concat([Buffer.from([0, 1]), length, Buffer.from(value)]);
  return Buffer.concat([message("T", column), message("D", data)]);
}

/** A whole answer to a query. */
export const answerOf = (value: string): Buffer => Buffer.concat([rowOf(value), message("C", "SELECT 1\0"), READY]);

/** A server that answers each piece that arrives with the next step of a script, and after the last one nothing. */
export const postgresServer = (...steps: readonly (Buffer | string | ((socket: Socket, heard: Buffer) => void))[]): Promise<Scripted> =>
  listen((socket) => {
    let at = 0;
    socket.on("data", (heard: Buffer) => {
      const step = steps[at++];
      if (typeof step === "function") step(socket, heard);
      else if (step !== undefined) socket.write(step);
    });
  });

/** Ends the connection in order. */
export const hangUp = (socket: Socket): void => void socket.end();
/** Cuts it off. */
export const reset = (socket: Socket): void => void socket.resetAndDestroy();
