/**
 * Chooses what to measure:
 *
 *   npm run bench -- [--seconds 60] [--rounds 3]               resolve and create beside an empty gRPC call
 *   npm run bench -- tests                                     what other calls notice of connection tests
 *   npm run bench -- refresh                                   what other calls notice of renewals
 *   npm run bench -- rotation [--rows 100000] [--rounds 3]     the rotation of keys beside its floors
 *   npm run bench -- client-cache [--rounds 5]                 the client's cache beside a call, and how soon a change is told
 */
await import(process.argv[2] === "rotation" ? "./rotation.ts" : process.argv[2] === "client-cache" ? "./client-cache.ts" : "./calls.ts");
