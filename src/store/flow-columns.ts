import type { FlowFacts } from "./store.ts";

/** Values of `oauth_origin`, `account_id`, `requested_scopes` and `granted_scopes`, from what a flow learnt: a JSON expression in SQL, or null. */
export const flowColumns = (facts: string): readonly [string, string, string, string] => {
  const list = (key: string) => `case when json_typeof(${facts}->'${key}') = 'array' then array(select json_array_elements_text(${facts}->'${key}')) end`;
  return [`case when ${facts} is null then 'posted' else 'flow' end`, `${facts}->>'account_id'`, list("requested_scopes"), list("granted_scopes")];
};

/** The same facts as that JSON. */
export const flowValue = (flow: FlowFacts | undefined) =>
  flow === undefined ? null : { account_id: flow.accountId, reason: flow.reason, requested_scopes: flow.requestedScopes, granted_scopes: flow.grantedScopes };
