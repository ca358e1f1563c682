import { usage } from "./failure.ts";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The UUID that an option holds. The message never repeats the value: it may be a secret in the wrong place. */
export function uuid(option: string, text: string): string {
  if (!UUID.test(text)) throw usage(`${option} must be a UUID`);
  return text.toLowerCase();
}

/** The whole number that an option holds. */
export function whole(option: string, text: string, minimum: number, maximum: number): number {
  const value = /^\d{1,12}$/.test(text) ? Number(text) : NaN;
  if (!(value >= minimum && value <= maximum)) throw usage(`${option} must be a whole number from ${minimum} to ${maximum}`);
  return value;
}

/** The words that an option holds, separated by commas; none where it is absent. */
export const words = (text: string | undefined): string[] => (text === undefined ? [] : text.split(",").map((part) => part.trim()).filter((part) => part !== ""));

const TIMESTAMP = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;

/** The time that an option holds (RFC 3339 section 5.6). */
export function time(option: string, text: string): Date {
  const value = new Date(TIMESTAMP.test(text) ? text : NaN);
  if (Number.isNaN(value.getTime())) throw usage(`${option} must be a time such as 2030-01-31T12:00:00Z`);
  return value;
}
