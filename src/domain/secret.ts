import { inspect } from "node:util";

const PRINTED = "[secret]";

/** A value that refuses to print: string conversion, JSON and inspection all give `[secret]`. */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself. Every call site is a place where a secret comes into the open. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return PRINTED;
  }

  toJSON(): string {
    return PRINTED;
  }

  [inspect.custom](): string {
    return PRINTED;
  }
}

/** Wraps a value so that it cannot be printed by accident. */
export function secret<T>(value: T): Secret<T> {
  return new Secret(value);
}
