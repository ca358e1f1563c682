/**
 * Chooses what to measure:
 *
 *   npm run bench -- [--seconds 300] [--rounds 3]              every kind of call beside an empty one, and the goals
 *   npm run bench -- replicas                                  two replicas on one database beside one
 *   npm run bench -- scale [--sizes 1000,100000,1000000]       calls at growing numbers of credentials
 *   npm run bench -- tests                                     what other calls notice of connection tests
 *   npm run bench -- refresh                                   what other calls notice of renewals
 *   npm run bench -- rotation [--rows 100000] [--rounds 3]     the rotation of keys beside its floors
 *   npm run bench -- client-cache [--rounds 5]                 the client's cache beside a call, and how soon a change is told
 */
const FILES: Readonly<Record<string, string>> = {
  calls: "calls", replicas: "replicas", scale: "scale", tests: "beside", refresh: "beside", rotation: "rotation", "client-cache": "client-cache",
};
const what = process.argv[2] === undefined || process.argv[2].startsWith("-") ? "calls" : process.argv[2];
const file = FILES[what];
if (file === undefined) throw new Error(`there is no benchmark ${what}; there are ${Object.keys(FILES).join(", ")}`);
await import(`./${file}.ts`);
