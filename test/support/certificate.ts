import { generate } from "selfsigned";

/** Makes an authority and a certificate of it for `localhost` and 127.0.0.1, PEM. */
export async function makeCertificate() {
  const named = (value: string) => [{ name: "commonName", value }];
  const authority = await generate(named("Test authority"), {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [{ name: "basicConstraints", cA: true, critical: true }, { name: "keyUsage", keyCertSign: true, critical: true }],
  });
  const { cert, private: key } = await generate(named("localhost"), {
    keyType: "ec",
    algorithm: "sha256",
    ca: { key: authority.private, cert: authority.cert },
    extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }, { type: 7, ip: "127.0.0.1" }] }],
  });
  return { ca: authority.cert, cert, key };
}
