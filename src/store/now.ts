/** Now, as it is stored and shown, in SQL: in milliseconds. */
export const NOW = "date_trunc('milliseconds', clock_timestamp())";
