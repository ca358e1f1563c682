import type { CheckResult, Finding, Findings } from "../domain/check.ts";

/** Most that a child may answer, bytes. */
export const MAX_ANSWER_BYTES = 65_536;
/** Longest text among the details, characters. */
const MAX_TEXT = 1_024;
const MAX_DETAILS = 64;

/** Names of details. */
const WORD = /^[a-z][a-z0-9_]{0,63}$/;

const failure = (reason: string, layer: Finding["layer"], message: string, nextStep: string): CheckResult => ({
  success: false, layer, reason, message, nextStep, details: {},
});

/** The test died: a crash, too much memory, or an answer that is none. */
export const TEST_FAILED = failure("test_failed", "protocol", "The test could not be finished.", "Try again; if it goes on, tell support when you did.");

/** The test was still running when its time was over. */
export const DEADLINE_EXCEEDED = failure("deadline_exceeded", "timeout", "The test took too long and was ended.", "Check that the host answers quickly, then try again.");

/** There is no test for this provider and type. */
export const NOT_SUPPORTED = failure("not_supported", "protocol", "Credentials of this kind cannot be tested.", "Run a flow that uses the credential to see whether it works.");

/**
 * Reads a child's answer; undefined where it is not one. A child that a hostile server has taken over could say anything, so of a failure only its word
 * is believed and everything said of it is looked up, and a success may say nothing but what is known.
 */
export function readAnswer(text: string, { failures, passes }: Findings): CheckResult | undefined {
  const said = parsed(text);
  if (!isPlain(said)) return undefined;
  const { success, reason, message, details } = said;
  if (typeof reason !== "string" || !isPlain(details)) return undefined;
  const facts = Object.entries(details);
  if (facts.length > MAX_DETAILS || !facts.every(([name, fact]) => WORD.test(name) && isFact(fact))) return undefined;
  const known = { details: Object.fromEntries(facts) as CheckResult["details"] };
  if (success === true) {
    if (reason !== "ok" || typeof message !== "string" || !passes.has(message)) return undefined;
    return { success, layer: null, reason, message, nextStep: "", ...known };
  }
  if (success !== false) return undefined;
  if (reason === NOT_SUPPORTED.reason) return NOT_SUPPORTED;
  if (!Object.hasOwn(failures, reason)) return undefined;
  const { layer, message: sentence, nextStep } = failures[reason] as Finding;
  return { success, layer, reason, message: sentence, nextStep, ...known };
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
