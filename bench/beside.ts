/**
 * Measures what ResolveCredential notices of something else that the service does meanwhile.
 *
 *   npm run bench -- tests     [--seconds 60] [--rounds 3]   of connection tests; see tests.ts
 *   npm run bench -- refresh   [--seconds 60] [--rounds 3]   of renewals; see refresh.ts
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Beside, besideText } from "./lib/beside.ts";
import { Session } from "./lib/session.ts";
import { serviceEnvironment, World } from "./lib/world.ts";
import { measureRefresh, startProvider } from "./refresh.ts";
import { measureTests, TEST_SETTINGS } from "./tests.ts";

const { values: args, positionals } = parseArgs({ allowPositionals: true, options: { seconds: { type: "string", default: "60" }, rounds: { type: "string", default: "3" } } });
const [seconds, rounds] = [Number(args.seconds), Number(args.rounds)];
if (!(seconds > 0 && Number.isInteger(rounds) && rounds > 0)) throw new Error("--seconds and --rounds must be positive numbers");

await using session = new Session();
const jwtSecret = randomBytes(32).toString("base64url");
await using provider = positionals[0] === "refresh" ? await startProvider() : undefined;
const service = await session.start("src/main.ts", { ...serviceEnvironment(join(session.folder, "data"), jwtSecret), ...(provider?.settings ?? TEST_SETTINGS) });
const world = await World.make(jwtSecret);
await world.fill(service);
let [what, report]: [string, Beside | undefined] = ["", undefined];
if (provider) {
  const measured = await measureRefresh(world, service, seconds, rounds);
  [what, report] = [`${measured.renewed} renewals (${provider.calls()} calls of the provider)`, measured];
} else {
  const measured = await measureTests(world, service, seconds, rounds);
  [what, report] = [`${measured.tests} tests`, measured];
}
await service.stop();
process.stdout.write(besideText(what, report));
