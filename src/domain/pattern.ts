/** Longest pattern whose repetition is looked for, bytes. */
const MAX_PERIOD = 16;

/** Why bytes were not drawn at random, as the rest of a sentence about them; undefined where no pattern shows. */
export function patternIn(bytes: Buffer): string | undefined {
  if (bytes.every((byte) => byte === bytes[0])) return "repeats one byte";
  if (isProgression(bytes)) return "counts up or down";
  if (isPeriodic(bytes)) return "repeats a pattern";
  return undefined;
}

function isProgression(bytes: Buffer): boolean {
  const step = (index: number) => (bytes.readUInt8(index) - bytes.readUInt8(index - 1)) & 0xff;
  return bytes.every((_, index) => index === 0 || step(index) === step(1));
}

function isPeriodic(bytes: Buffer): boolean {
  const periods = Array.from({ length: MAX_PERIOD }, (_, index) => index + 1);
  return periods.some((period) => bytes.every((byte, index) => index < period || byte === bytes[index - period]));
}
