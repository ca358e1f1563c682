import ssh2 from "ssh2";

const { utils } = ssh2;

/**
 * A key pair in OpenSSH's format. One in some hundreds that ssh2 makes is malformed, and no program reads it, OpenSSH's own included:
 * another one is made then.
 */
export function sshKeyPair(type: "ed25519", options: { readonly cipher?: string; readonly passphrase?: string; readonly rounds?: number } = {}): { readonly private: string; readonly public: string } {
  for (;;) {
    const pair = utils.generateKeyPairSync(type, options as { cipher: string; passphrase: string; rounds: number });
    if (!(utils.parseKey(pair.private, options.passphrase) instanceof Error)) return pair;
  }
}
