import { type CheckResult, LAYERS } from "../domain/check.ts";

/** Most that a child may answer, bytes. */
export const MAX_ANSWER_BYTES = 65_536;
/** Longest sentence and longest text among the details, characters. */
const MAX_TEXT = 1_024;
const MAX_DETAILS = 64;

/** Stable words, and names of details. */
const WORD = /^[a-z][a-z0-9_]{0,63}$/;

const failure = (layer: CheckResult["layer"], reason: string, message: string, nextStep: string): CheckResult => ({
  success: false, layer, reason, message, nextStep, details: {},
});

/** The test died: a crash, too much memory, or an answer that is none. */
export const TEST_FAILED = failure("protocol", "test_failed", "The test could not be finished.", "Try again; if it goes on, tell support when you did.");

/** The test was still running when its time was over. */
export const DEADLINE_EXCEEDED = failure("timeout", "deadline_exceeded", "The test took too long and was ended.", "Check that the host answers quickly, then try again.");

/** There is no test for this provider and type. */
export const NOT_SUPPORTED = failure("protocol", "not_supported", "Credentials of this kind cannot be tested.", "Run a flow that uses the credential to see whether it works.");

/** Reads a child's answer; undefined where it is not a `CheckResult`. A child that a hostile server has taken over could say anything. */
export function readAnswer(text: string): CheckResult | undefined {
  const said = parsed(text);
  if (!isPlain(said)) return undefined;
  const { success, layer, reason, message, nextStep, details } = said;
  if (typeof success !== "boolean" || typeof reason !== "string" || !WORD.test(reason)) return undefined;
  const where = LAYERS.find((known) => known === layer) ?? null;
  if (success ? layer !== null || reason !== "ok" : where === null || reason === "ok") return undefined;
  if (!isText(message) || !isText(nextStep) || !isPlain(details)) return undefined;
  const facts = Object.entries(details);
  if (facts.length > MAX_DETAILS || !facts.every(([name, fact]) => WORD.test(name) && isFact(fact))) return undefined;
  return { success, layer: where, reason, message, nextStep, details: Object.fromEntries(facts) as CheckResult["details"] };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isPlain = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

/** Control and format characters, characters that stand for nothing, lone surrogates, and ends of lines and paragraphs. */
const UNSHOWABLE = /[\p{C}\p{Zl}\p{Zp}]/u;

/** It stays one line, and reads as it is written, wherever it is shown. */
const isText = (value: unknown): value is string => typeof value === "string" && value.length <= MAX_TEXT && !UNSHOWABLE.test(value);

const isFact = (value: unknown): boolean => typeof value === "boolean" || Number.isFinite(value) || isText(value);
