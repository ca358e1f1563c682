import { fail } from "../domain/errors.ts";
import type { KeyUseCases } from "./keys-use-cases.ts";

const later = async (): Promise<never> => {
  throw fail("INTERNAL");
};

/** What operators do with keys, bound to what it stands on. */
export function keyUseCases(): KeyUseCases {
  return {
    status: later, rotateMasterKey: later, rotateOrganizationKey: later, verify: later, rotation: later, control: later, rollBack: later,
    retire: later, destroyOrganization: later, importCredential: later,
  };
}
