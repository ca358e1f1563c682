import type { OrganizationKeySource, StoredOrganizationKey } from "../../src/crypto/organization-keys.ts";

/** Organization keys in memory, with the promises of the real store: unique versions, and the first writer stands. */
export class MemoryKeySource implements OrganizationKeySource {
  readonly rows: StoredOrganizationKey[];
  /** Calls so far, by function. */
  readonly calls = { current: 0, byVersion: 0, insertFirst: 0 };

  constructor(rows: readonly StoredOrganizationKey[] = []) {
    this.rows = [...rows];
  }

  async current(organizationId: string): Promise<StoredOrganizationKey | undefined> {
    this.calls.current++;
    return this.#of(organizationId).reduce<StoredOrganizationKey | undefined>((best, row) => (best && best.version > row.version ? best : row), undefined);
  }

  async byVersion(organizationId: string, version: number): Promise<StoredOrganizationKey | undefined> {
    this.calls.byVersion++;
    return this.#of(organizationId).find((row) => row.version === version);
  }

  async insertFirst(row: StoredOrganizationKey): Promise<StoredOrganizationKey> {
    this.calls.insertFirst++;
    const standing = this.#of(row.organizationId).find(({ version }) => version === row.version);
    if (standing) return standing;
    this.rows.push(row);
    return row;
  }

  /** Puts another row in the place of one that is stored. */
  replace(row: StoredOrganizationKey): void {
    const index = this.rows.findIndex(({ organizationId, version }) => organizationId === row.organizationId && version === row.version);
    this.rows[index] = row;
  }

  #of(organizationId: string): StoredOrganizationKey[] {
    return this.rows.filter((row) => row.organizationId.toLowerCase() === organizationId.toLowerCase());
  }
}
