import { expect, test } from "vitest";
import { bill, identityOf } from "../support/bill.ts";
import { faults, isAllowed, report, shipped } from "../support/licences.ts";

test("everything that is shipped is under a licence that is allowed", () => {
  const packages = shipped();
  expect(packages.length).toBeGreaterThan(100);
  expect(faults(packages)).toEqual([]);
  const text = report(packages);
  for (const { name } of packages) expect(text).toContain(`- ${name} `);
});

test.each(["MIT", "(Apache-2.0 AND BSD-3-Clause)", "MIT OR GPL-3.0-only", "(GPL-2.0 OR (MIT AND ISC))"])("%s can be met", (expression) => expect(isAllowed(expression)).toBe(true));
test.each(["GPL-3.0-only", "AGPL-3.0", "MIT AND GPL-2.0", "(MIT", "MIT ISC", "SEE LICENSE IN LICENSE", "UNLICENSED", "", "BUSL-1.1 OR SSPL-1.0"])("%j cannot", (expression) => expect(isAllowed(expression)).toBe(false));
test("a package without a licence is a fault", () => expect(faults([{ name: "a", version: "1.0.0", licence: undefined }])).toEqual(["a@1.0.0: no licence is named"]));

test("the bill of materials names every package that is shipped, with its version, and no other", () => {
  const { bomFormat, components, dependencies } = bill();
  expect(bomFormat).toBe("CycloneDX");
  const named = (list: readonly { name: string; version: string }[]) => [...new Set(list.map(({ name, version }) => `${name}@${version}`))].sort();
  expect(components.map(({ purl }) => identityOf(purl)).filter((each, index, all) => all.indexOf(each) === index).sort()).toEqual(named(shipped()));
  const refs = new Set(dependencies.map(({ ref }) => ref));
  expect(dependencies.flatMap(({ dependsOn = [] }) => dependsOn).filter((ref) => !refs.has(ref))).toEqual([]);
});
