-- Described from pg_catalog. To update: node test/support/describe-schema.ts --write

-- types

create domain ciphertext as bytea; -- ciphertext_must_not_be_empty CHECK ((length(VALUE) > 0))

-- tables

table audit_event owner credentials_owner rls t force t
table audit_head owner credentials_owner rls t force t
table audit_signature owner credentials_owner rls t force t
table audit_signing owner credentials_owner rls f force f
table credential owner credentials_owner rls t force t
table credential_counter owner credentials_owner rls t force t
table credential_event owner credentials_owner rls t force t
table credential_event_head owner credentials_owner rls f force f
table credential_limit owner credentials_owner rls t force t
table credential_previous owner credentials_owner rls t force t
table credential_refresh owner credentials_owner rls f force f
table credential_use owner credentials_owner rls t force t
table foreign_key_check owner credentials_owner rls f force f
table idempotency_record owner credentials_owner rls t force t
table imported_credential owner credentials_owner rls t force t
table key_registry owner credentials_owner rls f force f
table oauth_authorization owner credentials_owner rls t force t
table oauth_state owner credentials_owner rls f force f
table organization_key owner credentials_owner rls t force t
table organization_key_place owner credentials_owner rls f force f
table primary_master_key owner credentials_owner rls f force f
table purge_due owner credentials_owner rls f force f
table replica owner credentials_owner rls f force f
table rotation owner credentials_owner rls f force f
table rotation_failure owner credentials_owner rls f force f
table schema_compatibility owner credentials_owner rls f force f
table schema_migration owner credentials_owner rls f force f
table schema_migration_id_seq owner credentials_owner rls f force f
table schema_migration_lock owner credentials_owner rls f force f
table schema_migration_lock_index_seq owner credentials_owner rls f force f
table service_account owner credentials_owner rls t force t
table service_account_key owner credentials_owner rls f force f
table service_account_key_label owner credentials_owner rls t force t

-- columns

column audit_event.organization_id uuid not null storage p
column audit_event.link bigint not null storage p
column audit_event."position" integer not null storage p
column audit_event.occurred_at timestamp(3) with time zone not null storage p
column audit_event.request_id text not null storage x
column audit_event.actor_kind text not null storage x
column audit_event.actor_id text not null storage x
column audit_event.action text not null storage x
column audit_event.outcome text not null storage x
column audit_event.reason text storage x
column audit_event.credential_id uuid storage p
column audit_event.flow_id text storage x
column audit_event.run_id text storage x
column audit_event.hash bytea not null storage x
column audit_event.subject_id uuid storage p
column audit_event.key_id uuid storage p
column audit_event.calls integer storage p
column audit_head.organization_id uuid not null storage p
column audit_head.link bigint not null storage p
column audit_head.digest bytea not null storage x
column audit_head.hash bytea not null storage x
column audit_signature.organization_id uuid not null storage p
column audit_signature.link bigint not null storage p
column audit_signature.hash bytea not null storage x
column audit_signature.key_id text not null storage x
column audit_signature.signed_at timestamp(3) with time zone not null storage p
column audit_signature.signature bytea not null storage x
column audit_signing.organization_id uuid not null storage p
column credential.organization_id uuid not null storage p
column credential.id uuid not null storage p
column credential.provider text not null storage x
column credential.credential_type text not null storage x
column credential.user_id uuid storage p
column credential.name text storage x
column credential.account_email text storage x
column credential.status text not null default 'active'::text storage x
column credential.status_reason text storage x
column credential.token_expires_at timestamp(3) with time zone storage p
column credential.sealed ciphertext storage e
column credential.secret_version bigint not null default 1 storage p
column credential.revision integer not null default 1 storage p
column credential.created_at timestamp(3) with time zone not null storage p
column credential.updated_at timestamp(3) with time zone not null storage p
column credential.modified_by text not null storage x
column credential.deleted_at timestamp(3) with time zone storage p
column credential.purged_at timestamp(3) with time zone storage p
column credential.oauth_origin text not null default 'posted'::text storage x
column credential.account_id text storage x
column credential.requested_scopes text[] storage x
column credential.granted_scopes text[] storage x
column credential.renewable boolean not null default false storage p
column credential.status_since timestamp(3) with time zone not null default now() storage p
column credential.key_version bigint default sealed_key_version((sealed)::bytea) storage p
column credential_counter.organization_id uuid not null storage p
column credential_counter.counter text not null storage x
column credential_counter.n integer not null storage p
column credential_event.organization_id uuid not null storage p
column credential_event.revision bigint not null storage p
column credential_event.occurred_at timestamp(3) with time zone not null storage p
column credential_event.kind text not null storage x
column credential_event.credential_id uuid not null storage p
column credential_event.provider text not null storage x
column credential_event.credential_type text not null storage x
column credential_event.status text not null storage x
column credential_event.status_reason text storage x
column credential_event.status_since timestamp(3) with time zone not null storage p
column credential_event.secret_version bigint not null storage p
column credential_event.credential_revision integer storage p
column credential_event_head.organization_id uuid not null storage p
column credential_event_head.revision bigint not null storage p
column credential_event_head.sent bigint not null default 0 storage p
column credential_event_head.due_at timestamp with time zone not null default now() storage p
column credential_event_head.attempts integer not null default 0 storage p
column credential_event_head.fence bigint not null default 0 storage p
column credential_event_head.lease_token uuid storage p
column credential_event_head.lease_until timestamp with time zone storage p
column credential_event_head.pruned bigint not null default 0 storage p
column credential_event_head.changed_in xid8 not null default pg_current_xact_id() storage p
column credential_limit.organization_id uuid not null storage p
column credential_limit.provider text not null storage x
column credential_limit.n integer not null storage p
column credential_previous.organization_id uuid not null storage p
column credential_previous.credential_id uuid not null storage p
column credential_previous.secret_version bigint not null storage p
column credential_previous.credential_type text not null storage x
column credential_previous.sealed ciphertext not null storage e
column credential_previous.account_email text storage x
column credential_previous.token_expires_at timestamp(3) with time zone storage p
column credential_previous.kept_until timestamp(3) with time zone not null storage p
column credential_previous.key_version bigint default sealed_key_version((sealed)::bytea) storage p
column credential_previous.oauth_origin text not null default 'posted'::text storage x
column credential_previous.account_id text storage x
column credential_previous.requested_scopes text[] storage x
column credential_previous.granted_scopes text[] storage x
column credential_refresh.organization_id uuid not null storage p
column credential_refresh.credential_id uuid not null storage p
column credential_refresh.provider text not null storage x
column credential_refresh.due_at timestamp with time zone storage p
column credential_refresh.attempts integer not null default 0 storage p
column credential_refresh.fence bigint not null default 0 storage p
column credential_refresh.lease_token uuid storage p
column credential_refresh.lease_until timestamp with time zone storage p
column credential_refresh.intent_version bigint storage p
column credential_refresh.intent_fence bigint storage p
column credential_refresh.tried_at timestamp with time zone storage p
column credential_use.organization_id uuid not null storage p
column credential_use.credential_id uuid not null storage p
column credential_use.service_account_id uuid not null storage p
column credential_use.flow_id text not null storage x
column credential_use.last_run_id text storage x
column credential_use.last_used_at timestamp(3) with time zone not null storage p
column credential_use.uses bigint not null storage p
column foreign_key_check.check_value bytea not null storage x
column foreign_key_check.first_seen timestamp(3) with time zone not null default now() storage p
column idempotency_record.organization_id uuid not null storage p
column idempotency_record.actor_kind text not null storage x
column idempotency_record.actor_id text not null storage x
column idempotency_record.action text not null storage x
column idempotency_record.key_hash bytea not null storage x
column idempotency_record.request_hash bytea not null storage x
column idempotency_record.key_version bigint not null storage p
column idempotency_record.answer jsonb not null storage x
column idempotency_record.expires_at timestamp(3) with time zone not null storage p
column imported_credential.organization_id uuid not null storage p
column imported_credential.source text not null storage x
column imported_credential.credential_id uuid not null storage p
column imported_credential.sealed_at timestamp(3) with time zone not null storage p
column imported_credential.imported_at timestamp(3) with time zone not null default now() storage p
column key_registry.master_key_id text not null storage x
column key_registry.check_value bytea not null storage x
column key_registry.first_seen timestamp(3) with time zone not null default now() storage p
column key_registry.canary ciphertext storage x
column key_registry.canary_commitment bytea storage x
column key_registry.retired_at timestamp(3) with time zone storage p
column oauth_authorization.organization_id uuid not null storage p
column oauth_authorization.id uuid not null storage p
column oauth_authorization.user_id uuid not null storage p
column oauth_authorization.provider text not null storage x
column oauth_authorization.browser_hash bytea storage x
column oauth_authorization.sealed ciphertext not null storage x
column oauth_authorization.created_at timestamp(3) with time zone not null default now() storage p
column oauth_authorization.expires_at timestamp(3) with time zone not null storage p
column oauth_state.state_hash bytea not null storage x
column oauth_state.organization_id uuid not null storage p
column oauth_state.authorization_id uuid not null storage p
column organization_key.organization_id uuid not null storage p
column organization_key.version bigint not null storage p
column organization_key.wrapped ciphertext storage x
column organization_key.master_key_id text storage x
column organization_key.commitment bytea not null storage x
column organization_key.created_at timestamp(3) with time zone not null default now() storage p
column organization_key.destroyed_at timestamp(3) with time zone storage p
column organization_key.state text not null default 'sealing'::text storage x
column organization_key_place.organization_id uuid not null storage p
column organization_key_place.version bigint not null storage p
column organization_key_place.master_key_id text not null storage x
column primary_master_key.singleton boolean not null default true storage p
column primary_master_key.master_key_id text not null storage x
column primary_master_key.promoted_at timestamp(3) with time zone not null default now() storage p
column purge_due.organization_id uuid not null storage p
column purge_due.credential_id uuid not null storage p
column purge_due.kind text not null storage x
column purge_due.since timestamp(3) with time zone not null storage p
column replica.id uuid not null storage p
column replica.master_key_ids text[] not null storage x
column replica.key_cache_seconds integer not null storage p
column replica.seen_at timestamp(3) with time zone not null storage p
column replica.alive_until timestamp(3) with time zone not null storage p
column rotation.id uuid not null storage p
column rotation.kind text not null storage x
column rotation.state text not null storage x
column rotation.organization_id uuid storage p
column rotation.from_master_key_id text storage x
column rotation.to_master_key_id text storage x
column rotation.emptied text[] not null default '{}'::text[] storage x
column rotation.from_version bigint storage p
column rotation.to_version bigint storage p
column rotation.rows_total bigint not null storage p
column rotation.rows_moved bigint not null default 0 storage p
column rotation.rows_verified bigint not null default 0 storage p
column rotation.rows_failed bigint not null default 0 storage p
column rotation.rows_per_second integer storage p
column rotation.started_at timestamp(3) with time zone not null default now() storage p
column rotation.started_by text not null storage x
column rotation.closed_before xid8 storage p
column rotation.finished_at timestamp(3) with time zone storage p
column rotation.proof bytea storage x
column rotation.rolls_back uuid storage p
column rotation.holder uuid storage p
column rotation.held_until timestamp(3) with time zone storage p
column rotation_failure.rotation_id uuid not null storage p
column rotation_failure.place integer not null storage p
column rotation_failure.organization_id uuid not null storage p
column rotation_failure.credential_id uuid storage p
column rotation_failure.key_version bigint not null storage p
column rotation_failure.kind text not null storage x
column schema_compatibility.singleton boolean not null default true storage p
column schema_compatibility.needs text not null storage x
column schema_migration.id integer not null default nextval('schema_migration_id_seq'::regclass) storage p
column schema_migration.name character varying(255) storage x
column schema_migration.batch integer storage p
column schema_migration.migration_time timestamp with time zone storage p
column schema_migration_lock.index integer not null default nextval('schema_migration_lock_index_seq'::regclass) storage p
column schema_migration_lock.is_locked integer storage p
column service_account.organization_id uuid not null storage p
column service_account.id uuid not null storage p
column service_account.name text not null storage x
column service_account.created_at timestamp(3) with time zone not null default now() storage p
column service_account.description text storage x
column service_account.status text not null default 'active'::text storage x
column service_account.granted_providers text[] storage x
column service_account.granted_credentials uuid[] storage x
column service_account.updated_at timestamp(3) with time zone not null default now() storage p
column service_account.modified_by text not null default 'operator'::text storage x
column service_account.deleted_at timestamp(3) with time zone storage p
column service_account_key.id uuid not null storage p
column service_account_key.organization_id uuid not null storage p
column service_account_key.service_account_id uuid not null storage p
column service_account_key.token_prefix text not null storage x
column service_account_key.token_hash bytea not null storage x
column service_account_key.created_at timestamp(3) with time zone not null default now() storage p
column service_account_key.expires_at timestamp(3) with time zone storage p
column service_account_key.revoked_at timestamp(3) with time zone storage p
column service_account_key_label.organization_id uuid not null storage p
column service_account_key_label.id uuid not null storage p
column service_account_key_label.name text not null storage x
column service_account_key_label.description text storage x
column service_account_key_label.updated_at timestamp(3) with time zone not null default now() storage p
column service_account_key_label.modified_by text not null storage x
column service_account_key_label.last_used_at timestamp(3) with time zone storage p

-- constraints

constraint audit_event_action_not_null on audit_event: NOT NULL action
constraint audit_event_actor_id_not_null on audit_event: NOT NULL actor_id
constraint audit_event_actor_kind_must_be_known on audit_event: CHECK ((actor_kind = ANY (ARRAY['user'::text, 'service_account'::text, 'operator'::text, 'system'::text])))
constraint audit_event_actor_kind_not_null on audit_event: NOT NULL actor_kind
constraint audit_event_calls_must_be_positive on audit_event: CHECK ((calls >= 1))
constraint audit_event_hash_must_be_32_bytes on audit_event: CHECK ((length(hash) = 32))
constraint audit_event_hash_not_null on audit_event: NOT NULL hash
constraint audit_event_link_not_null on audit_event: NOT NULL link
constraint audit_event_must_have_a_reason_unless_allowed on audit_event: CHECK (((outcome = 'allowed'::text) = (reason IS NULL)))
constraint audit_event_occurred_at_not_null on audit_event: NOT NULL occurred_at
constraint audit_event_organization_id_not_null on audit_event: NOT NULL organization_id
constraint audit_event_outcome_must_be_known on audit_event: CHECK ((outcome = ANY (ARRAY['allowed'::text, 'refused'::text, 'cancelled'::text, 'failed'::text])))
constraint audit_event_outcome_not_null on audit_event: NOT NULL outcome
constraint audit_event_pkey on audit_event: PRIMARY KEY (organization_id, link, "position")
constraint audit_event_place_must_be_positive on audit_event: CHECK (((link >= 1) AND ("position" >= 1)))
constraint audit_event_position_not_null on audit_event: NOT NULL "position"
constraint audit_event_request_id_not_null on audit_event: NOT NULL request_id
constraint audit_head_digest_not_null on audit_head: NOT NULL digest
constraint audit_head_hash_not_null on audit_head: NOT NULL hash
constraint audit_head_hashes_must_be_32_bytes on audit_head: CHECK (((length(digest) = 32) AND (length(hash) = 32)))
constraint audit_head_link_must_be_positive on audit_head: CHECK ((link >= 1))
constraint audit_head_link_not_null on audit_head: NOT NULL link
constraint audit_head_organization_id_not_null on audit_head: NOT NULL organization_id
constraint audit_head_pkey on audit_head: PRIMARY KEY (organization_id)
constraint audit_signature_hash_must_be_32_bytes on audit_signature: CHECK ((length(hash) = 32))
constraint audit_signature_hash_not_null on audit_signature: NOT NULL hash
constraint audit_signature_key_id_not_null on audit_signature: NOT NULL key_id
constraint audit_signature_link_must_be_positive on audit_signature: CHECK ((link >= 1))
constraint audit_signature_link_not_null on audit_signature: NOT NULL link
constraint audit_signature_must_be_64_bytes on audit_signature: CHECK ((length(signature) = 64))
constraint audit_signature_organization_id_not_null on audit_signature: NOT NULL organization_id
constraint audit_signature_pkey on audit_signature: PRIMARY KEY (organization_id, link)
constraint audit_signature_signature_not_null on audit_signature: NOT NULL signature
constraint audit_signature_signed_at_not_null on audit_signature: NOT NULL signed_at
constraint audit_signing_organization_id_not_null on audit_signing: NOT NULL organization_id
constraint audit_signing_pkey on audit_signing: PRIMARY KEY (organization_id)
constraint credential_created_at_not_null on credential: NOT NULL created_at
constraint credential_credential_type_not_null on credential: NOT NULL credential_type
constraint credential_id_not_null on credential: NOT NULL id
constraint credential_modified_by_must_be_an_id_or_a_word on credential: CHECK ((modified_by ~ '^([0-9a-f-]{36}|service-account|system)$'::text))
constraint credential_modified_by_not_null on credential: NOT NULL modified_by
constraint credential_must_be_deleted_before_purged on credential: CHECK (((purged_at IS NULL) OR (deleted_at IS NOT NULL)))
constraint credential_must_be_sealed_until_purged on credential: CHECK (((sealed IS NULL) = (purged_at IS NOT NULL)))
constraint credential_oauth_origin_must_be_known on credential: CHECK ((oauth_origin = ANY (ARRAY['posted'::text, 'flow'::text])))
constraint credential_oauth_origin_not_null on credential: NOT NULL oauth_origin
constraint credential_organization_id_not_null on credential: NOT NULL organization_id
constraint credential_pkey on credential: PRIMARY KEY (organization_id, id)
constraint credential_provider_must_be_known on credential: CHECK ((provider = ANY (ARRAY['microsoft'::text, 'sharepoint'::text, 'sftp'::text, 'aws_ses'::text, 'google'::text, 'postgresql'::text, 'internal_postgresql'::text])))
constraint credential_provider_not_null on credential: NOT NULL provider
constraint credential_renewable_not_null on credential: NOT NULL renewable
constraint credential_revision_must_be_positive on credential: CHECK ((revision >= 1))
constraint credential_revision_not_null on credential: NOT NULL revision
constraint credential_sealed_must_have_its_format on credential: CHECK ((get_byte((sealed)::bytea, 0) = 197))
constraint credential_secret_version_must_be_positive on credential: CHECK ((secret_version >= 1))
constraint credential_secret_version_not_null on credential: NOT NULL secret_version
constraint credential_status_must_be_known on credential: CHECK ((status = ANY (ARRAY['active'::text, 'expiring'::text, 'refresh_failed'::text, 'reauth_required'::text, 'in_doubt'::text])))
constraint credential_status_not_null on credential: NOT NULL status
constraint credential_status_since_not_null on credential: NOT NULL status_since
constraint credential_times_must_be_ordered on credential: CHECK ((updated_at >= created_at))
constraint credential_type_must_be_known on credential: CHECK ((credential_type = ANY (ARRAY['api_key'::text, 'google_oauth'::text, 'sharepoint_oauth'::text, 'oauth2'::text, 'user_password'::text, 'key_file'::text])))
constraint credential_updated_at_not_null on credential: NOT NULL updated_at
constraint credential_counter_counter_not_null on credential_counter: NOT NULL counter
constraint credential_counter_must_be_known on credential_counter: CHECK ((counter ~ '^(provider:[a-z_]+|user:[0-9a-f-]{36})$'::text))
constraint credential_counter_must_not_be_negative on credential_counter: CHECK ((n >= 0))
constraint credential_counter_n_not_null on credential_counter: NOT NULL n
constraint credential_counter_organization_id_not_null on credential_counter: NOT NULL organization_id
constraint credential_counter_pkey on credential_counter: PRIMARY KEY (organization_id, counter)
constraint credential_event_credential_id_not_null on credential_event: NOT NULL credential_id
constraint credential_event_credential_type_not_null on credential_event: NOT NULL credential_type
constraint credential_event_kind_must_be_known on credential_event: CHECK ((kind = ANY (ARRAY['created'::text, 'updated'::text, 'rotated'::text, 'deleted'::text, 'restored'::text, 'status_changed'::text])))
constraint credential_event_kind_not_null on credential_event: NOT NULL kind
constraint credential_event_occurred_at_not_null on credential_event: NOT NULL occurred_at
constraint credential_event_organization_id_not_null on credential_event: NOT NULL organization_id
constraint credential_event_pkey on credential_event: PRIMARY KEY (organization_id, revision)
constraint credential_event_provider_not_null on credential_event: NOT NULL provider
constraint credential_event_revision_must_be_positive on credential_event: CHECK ((revision >= 1))
constraint credential_event_revision_not_null on credential_event: NOT NULL revision
constraint credential_event_secret_version_not_null on credential_event: NOT NULL secret_version
constraint credential_event_status_not_null on credential_event: NOT NULL status
constraint credential_event_status_since_not_null on credential_event: NOT NULL status_since
constraint credential_event_head_attempts_must_not_be_negative on credential_event_head: CHECK ((attempts >= 0))
constraint credential_event_head_attempts_not_null on credential_event_head: NOT NULL attempts
constraint credential_event_head_changed_in_not_null on credential_event_head: NOT NULL changed_in
constraint credential_event_head_due_at_not_null on credential_event_head: NOT NULL due_at
constraint credential_event_head_fence_must_not_be_negative on credential_event_head: CHECK ((fence >= 0))
constraint credential_event_head_fence_not_null on credential_event_head: NOT NULL fence
constraint credential_event_head_lease_must_be_whole on credential_event_head: CHECK (((lease_token IS NULL) = (lease_until IS NULL)))
constraint credential_event_head_organization_id_not_null on credential_event_head: NOT NULL organization_id
constraint credential_event_head_pkey on credential_event_head: PRIMARY KEY (organization_id)
constraint credential_event_head_pruned_must_not_be_ahead on credential_event_head: CHECK (((pruned >= 0) AND (pruned <= revision)))
constraint credential_event_head_pruned_not_null on credential_event_head: NOT NULL pruned
constraint credential_event_head_revision_not_null on credential_event_head: NOT NULL revision
constraint credential_event_head_sent_must_not_be_ahead on credential_event_head: CHECK (((sent >= 0) AND (sent <= revision)))
constraint credential_event_head_sent_not_null on credential_event_head: NOT NULL sent
constraint credential_limit_must_be_positive on credential_limit: CHECK (((n >= 1) AND (n <= 1000000)))
constraint credential_limit_n_not_null on credential_limit: NOT NULL n
constraint credential_limit_organization_id_not_null on credential_limit: NOT NULL organization_id
constraint credential_limit_pkey on credential_limit: PRIMARY KEY (organization_id, provider)
constraint credential_limit_provider_not_null on credential_limit: NOT NULL provider
constraint credential_previous_credential_id_not_null on credential_previous: NOT NULL credential_id
constraint credential_previous_credential_type_not_null on credential_previous: NOT NULL credential_type
constraint credential_previous_kept_until_not_null on credential_previous: NOT NULL kept_until
constraint credential_previous_oauth_origin_must_be_known on credential_previous: CHECK ((oauth_origin = ANY (ARRAY['flow'::text, 'posted'::text])))
constraint credential_previous_oauth_origin_not_null on credential_previous: NOT NULL oauth_origin
constraint credential_previous_organization_id_not_null on credential_previous: NOT NULL organization_id
constraint credential_previous_pkey on credential_previous: PRIMARY KEY (organization_id, credential_id)
constraint credential_previous_sealed_must_have_its_format on credential_previous: CHECK ((get_byte((sealed)::bytea, 0) = 197))
constraint credential_previous_sealed_not_null on credential_previous: NOT NULL sealed
constraint credential_previous_secret_version_not_null on credential_previous: NOT NULL secret_version
constraint credential_refresh_attempts_must_not_be_negative on credential_refresh: CHECK ((attempts >= 0))
constraint credential_refresh_attempts_not_null on credential_refresh: NOT NULL attempts
constraint credential_refresh_credential_id_not_null on credential_refresh: NOT NULL credential_id
constraint credential_refresh_fence_must_not_be_negative on credential_refresh: CHECK ((fence >= 0))
constraint credential_refresh_fence_not_null on credential_refresh: NOT NULL fence
constraint credential_refresh_intent_version_must_be_positive on credential_refresh: CHECK ((intent_version >= 1))
constraint credential_refresh_lease_must_be_whole on credential_refresh: CHECK (((lease_token IS NULL) = (lease_until IS NULL)))
constraint credential_refresh_organization_id_not_null on credential_refresh: NOT NULL organization_id
constraint credential_refresh_pkey on credential_refresh: PRIMARY KEY (organization_id, credential_id)
constraint credential_refresh_provider_not_null on credential_refresh: NOT NULL provider
constraint credential_use_credential_id_not_null on credential_use: NOT NULL credential_id
constraint credential_use_flow_id_not_null on credential_use: NOT NULL flow_id
constraint credential_use_last_used_at_not_null on credential_use: NOT NULL last_used_at
constraint credential_use_must_be_counted on credential_use: CHECK ((uses >= 1))
constraint credential_use_organization_id_not_null on credential_use: NOT NULL organization_id
constraint credential_use_pkey on credential_use: PRIMARY KEY (organization_id, credential_id, service_account_id, flow_id)
constraint credential_use_service_account_id_not_null on credential_use: NOT NULL service_account_id
constraint credential_use_uses_not_null on credential_use: NOT NULL uses
constraint foreign_key_check_check_value_not_null on foreign_key_check: NOT NULL check_value
constraint foreign_key_check_first_seen_not_null on foreign_key_check: NOT NULL first_seen
constraint foreign_key_check_must_be_32_bytes on foreign_key_check: CHECK ((length(check_value) = 32))
constraint foreign_key_check_pkey on foreign_key_check: PRIMARY KEY (check_value)
constraint idempotency_record_action_not_null on idempotency_record: NOT NULL action
constraint idempotency_record_actor_id_not_null on idempotency_record: NOT NULL actor_id
constraint idempotency_record_actor_kind_not_null on idempotency_record: NOT NULL actor_kind
constraint idempotency_record_answer_not_null on idempotency_record: NOT NULL answer
constraint idempotency_record_expires_at_not_null on idempotency_record: NOT NULL expires_at
constraint idempotency_record_hashes_must_be_32_bytes on idempotency_record: CHECK (((length(key_hash) = 32) AND (length(request_hash) = 32)))
constraint idempotency_record_key_hash_not_null on idempotency_record: NOT NULL key_hash
constraint idempotency_record_key_version_not_null on idempotency_record: NOT NULL key_version
constraint idempotency_record_organization_id_not_null on idempotency_record: NOT NULL organization_id
constraint idempotency_record_pkey on idempotency_record: PRIMARY KEY (organization_id, actor_kind, actor_id, action, key_hash)
constraint idempotency_record_request_hash_not_null on idempotency_record: NOT NULL request_hash
constraint imported_credential_credential_id_not_null on imported_credential: NOT NULL credential_id
constraint imported_credential_imported_at_not_null on imported_credential: NOT NULL imported_at
constraint imported_credential_organization_id_not_null on imported_credential: NOT NULL organization_id
constraint imported_credential_pkey on imported_credential: PRIMARY KEY (organization_id, source)
constraint imported_credential_sealed_at_not_null on imported_credential: NOT NULL sealed_at
constraint imported_credential_source_not_null on imported_credential: NOT NULL source
constraint key_registry_canary_commitment_must_be_32_bytes on key_registry: CHECK ((length(canary_commitment) = 32))
constraint key_registry_canary_must_be_whole on key_registry: CHECK (((canary IS NULL) = (canary_commitment IS NULL)))
constraint key_registry_check_value_must_be_32_bytes on key_registry: CHECK ((length(check_value) = 32))
constraint key_registry_check_value_not_null on key_registry: NOT NULL check_value
constraint key_registry_first_seen_not_null on key_registry: NOT NULL first_seen
constraint key_registry_master_key_id_not_null on key_registry: NOT NULL master_key_id
constraint key_registry_pkey on key_registry: PRIMARY KEY (master_key_id)
constraint oauth_authorization_browser_hash_must_be_32_bytes on oauth_authorization: CHECK ((length(browser_hash) = 32))
constraint oauth_authorization_created_at_not_null on oauth_authorization: NOT NULL created_at
constraint oauth_authorization_expires_at_not_null on oauth_authorization: NOT NULL expires_at
constraint oauth_authorization_id_not_null on oauth_authorization: NOT NULL id
constraint oauth_authorization_must_expire_later on oauth_authorization: CHECK ((expires_at > created_at))
constraint oauth_authorization_organization_id_not_null on oauth_authorization: NOT NULL organization_id
constraint oauth_authorization_pkey on oauth_authorization: PRIMARY KEY (organization_id, id)
constraint oauth_authorization_provider_not_null on oauth_authorization: NOT NULL provider
constraint oauth_authorization_sealed_must_have_its_format on oauth_authorization: CHECK ((get_byte((sealed)::bytea, 0) = 197))
constraint oauth_authorization_sealed_not_null on oauth_authorization: NOT NULL sealed
constraint oauth_authorization_user_id_not_null on oauth_authorization: NOT NULL user_id
constraint oauth_state_authorization_fkey on oauth_state: FOREIGN KEY (organization_id, authorization_id) REFERENCES oauth_authorization(organization_id, id) ON DELETE CASCADE
constraint oauth_state_authorization_id_not_null on oauth_state: NOT NULL authorization_id
constraint oauth_state_hash_must_be_32_bytes on oauth_state: CHECK ((length(state_hash) = 32))
constraint oauth_state_organization_id_not_null on oauth_state: NOT NULL organization_id
constraint oauth_state_pkey on oauth_state: PRIMARY KEY (state_hash)
constraint oauth_state_state_hash_not_null on oauth_state: NOT NULL state_hash
constraint organization_key_commitment_must_be_32_bytes on organization_key: CHECK ((length(commitment) = 32))
constraint organization_key_commitment_not_null on organization_key: NOT NULL commitment
constraint organization_key_created_at_not_null on organization_key: NOT NULL created_at
constraint organization_key_master_key_id_must_be_that_of_the_bytes on organization_key: CHECK (
CASE
    WHEN (wrapped IS NULL) THEN (master_key_id IS NULL)
    ELSE COALESCE(((length((wrapped)::bytea) > 4) AND (SUBSTRING(wrapped FROM 5 FOR get_byte((wrapped)::bytea, 3)) = convert_to(master_key_id, 'UTF8'::name))), false)
END)
constraint organization_key_must_be_wrapped_until_destroyed on organization_key: CHECK (((wrapped IS NULL) = (destroyed_at IS NOT NULL)))
constraint organization_key_organization_id_not_null on organization_key: NOT NULL organization_id
constraint organization_key_pkey on organization_key: PRIMARY KEY (organization_id, version)
constraint organization_key_state_must_be_known on organization_key: CHECK ((state = ANY (ARRAY['sealing'::text, 'opening'::text, 'closed'::text, 'retired'::text])))
constraint organization_key_state_not_null on organization_key: NOT NULL state
constraint organization_key_version_must_fit_its_format on organization_key: CHECK (((version >= 1) AND (version <= '4294967295'::bigint)))
constraint organization_key_version_not_null on organization_key: NOT NULL version
constraint organization_key_wrapped_must_have_its_format on organization_key: CHECK ((get_byte((wrapped)::bytea, 0) = 196))
constraint organization_key_place_master_key_id_not_null on organization_key_place: NOT NULL master_key_id
constraint organization_key_place_organization_id_not_null on organization_key_place: NOT NULL organization_id
constraint organization_key_place_pkey on organization_key_place: PRIMARY KEY (organization_id, version)
constraint organization_key_place_version_not_null on organization_key_place: NOT NULL version
constraint primary_master_key_master_key_id_not_null on primary_master_key: NOT NULL master_key_id
constraint primary_master_key_must_be_one on primary_master_key: CHECK (singleton)
constraint primary_master_key_pkey on primary_master_key: PRIMARY KEY (singleton)
constraint primary_master_key_promoted_at_not_null on primary_master_key: NOT NULL promoted_at
constraint primary_master_key_singleton_not_null on primary_master_key: NOT NULL singleton
constraint purge_due_credential_id_not_null on purge_due: NOT NULL credential_id
constraint purge_due_kind_must_be_known on purge_due: CHECK ((kind = ANY (ARRAY['deleted'::text, 'previous'::text])))
constraint purge_due_kind_not_null on purge_due: NOT NULL kind
constraint purge_due_organization_id_not_null on purge_due: NOT NULL organization_id
constraint purge_due_pkey on purge_due: PRIMARY KEY (organization_id, credential_id, kind)
constraint purge_due_since_not_null on purge_due: NOT NULL since
constraint replica_alive_until_not_null on replica: NOT NULL alive_until
constraint replica_id_not_null on replica: NOT NULL id
constraint replica_key_cache_seconds_not_null on replica: NOT NULL key_cache_seconds
constraint replica_master_key_ids_not_null on replica: NOT NULL master_key_ids
constraint replica_pkey on replica: PRIMARY KEY (id)
constraint replica_seen_at_not_null on replica: NOT NULL seen_at
constraint rotation_counts_must_not_be_negative on rotation: CHECK ((LEAST(rows_total, rows_moved, rows_verified, rows_failed) >= 0))
constraint rotation_emptied_not_null on rotation: NOT NULL emptied
constraint rotation_id_not_null on rotation: NOT NULL id
constraint rotation_kind_must_be_known on rotation: CHECK ((kind = ANY (ARRAY['master_key'::text, 'organization_key'::text, 'verification'::text])))
constraint rotation_kind_not_null on rotation: NOT NULL kind
constraint rotation_master_key_must_be_named on rotation: CHECK (((kind = 'master_key'::text) = (to_master_key_id IS NOT NULL)))
constraint rotation_organization_key_must_be_named on rotation: CHECK (((kind = 'organization_key'::text) = (to_version IS NOT NULL)))
constraint rotation_organization_must_be_named on rotation: CHECK (((kind <> 'organization_key'::text) OR (organization_id IS NOT NULL)))
constraint rotation_pkey on rotation: PRIMARY KEY (id)
constraint rotation_proof_must_be_32_bytes on rotation: CHECK ((length(proof) = 32))
constraint rotation_rate_must_be_positive on rotation: CHECK ((rows_per_second >= 1))
constraint rotation_rows_failed_not_null on rotation: NOT NULL rows_failed
constraint rotation_rows_moved_not_null on rotation: NOT NULL rows_moved
constraint rotation_rows_total_not_null on rotation: NOT NULL rows_total
constraint rotation_rows_verified_not_null on rotation: NOT NULL rows_verified
constraint rotation_started_at_not_null on rotation: NOT NULL started_at
constraint rotation_started_by_not_null on rotation: NOT NULL started_by
constraint rotation_state_must_be_known on rotation: CHECK ((state = ANY (ARRAY['running'::text, 'paused'::text, 'proving'::text, 'proven'::text, 'incomplete'::text, 'retired'::text, 'rolled_back'::text])))
constraint rotation_state_not_null on rotation: NOT NULL state
constraint rotation_failure_key_version_not_null on rotation_failure: NOT NULL key_version
constraint rotation_failure_kind_must_be_a_word on rotation_failure: CHECK ((kind ~ '^[a-z_]{1,64}$'::text))
constraint rotation_failure_kind_not_null on rotation_failure: NOT NULL kind
constraint rotation_failure_organization_id_not_null on rotation_failure: NOT NULL organization_id
constraint rotation_failure_pkey on rotation_failure: PRIMARY KEY (rotation_id, place)
constraint rotation_failure_place_not_null on rotation_failure: NOT NULL place
constraint rotation_failure_rotation_id_not_null on rotation_failure: NOT NULL rotation_id
constraint schema_compatibility_must_be_one on schema_compatibility: CHECK (singleton)
constraint schema_compatibility_needs_not_null on schema_compatibility: NOT NULL needs
constraint schema_compatibility_pkey on schema_compatibility: PRIMARY KEY (singleton)
constraint schema_compatibility_singleton_not_null on schema_compatibility: NOT NULL singleton
constraint schema_migration_id_not_null on schema_migration: NOT NULL id
constraint schema_migration_pkey on schema_migration: PRIMARY KEY (id)
constraint schema_migration_lock_index_not_null on schema_migration_lock: NOT NULL index
constraint schema_migration_lock_pkey on schema_migration_lock: PRIMARY KEY (index)
constraint service_account_created_at_not_null on service_account: NOT NULL created_at
constraint service_account_description_must_be_short on service_account: CHECK ((length(description) <= 1024))
constraint service_account_grants_must_be_bounded on service_account: CHECK (((cardinality(granted_providers) <= 32) AND (cardinality(granted_credentials) <= 256)))
constraint service_account_id_not_null on service_account: NOT NULL id
constraint service_account_modified_by_must_be_an_id_or_a_word on service_account: CHECK ((modified_by ~ '^([0-9a-f-]{36}|operator)$'::text))
constraint service_account_modified_by_not_null on service_account: NOT NULL modified_by
constraint service_account_must_be_granted_both_or_everything on service_account: CHECK (((granted_providers IS NULL) = (granted_credentials IS NULL)))
constraint service_account_name_must_have_1_to_255_characters on service_account: CHECK (((length(name) >= 1) AND (length(name) <= 255)))
constraint service_account_name_not_null on service_account: NOT NULL name
constraint service_account_organization_id_not_null on service_account: NOT NULL organization_id
constraint service_account_pkey on service_account: PRIMARY KEY (organization_id, id)
constraint service_account_status_must_be_known on service_account: CHECK ((status = ANY (ARRAY['active'::text, 'inactive'::text])))
constraint service_account_status_not_null on service_account: NOT NULL status
constraint service_account_updated_at_not_null on service_account: NOT NULL updated_at
constraint service_account_key_account_fkey on service_account_key: FOREIGN KEY (organization_id, service_account_id) REFERENCES service_account(organization_id, id) ON DELETE RESTRICT
constraint service_account_key_created_at_not_null on service_account_key: NOT NULL created_at
constraint service_account_key_hash_must_be_32_bytes on service_account_key: CHECK ((length(token_hash) = 32))
constraint service_account_key_id_not_null on service_account_key: NOT NULL id
constraint service_account_key_organization_id_not_null on service_account_key: NOT NULL organization_id
constraint service_account_key_pkey on service_account_key: PRIMARY KEY (organization_id, id)
constraint service_account_key_prefix_must_be_unique on service_account_key: UNIQUE (token_prefix)
constraint service_account_key_service_account_id_not_null on service_account_key: NOT NULL service_account_id
constraint service_account_key_token_hash_not_null on service_account_key: NOT NULL token_hash
constraint service_account_key_token_prefix_not_null on service_account_key: NOT NULL token_prefix
constraint service_account_key_label_description_must_be_short on service_account_key_label: CHECK ((length(description) <= 1024))
constraint service_account_key_label_id_not_null on service_account_key_label: NOT NULL id
constraint service_account_key_label_key_fkey on service_account_key_label: FOREIGN KEY (organization_id, id) REFERENCES service_account_key(organization_id, id) ON DELETE RESTRICT
constraint service_account_key_label_modified_by_must_be_an_id_or_a_word on service_account_key_label: CHECK ((modified_by ~ '^([0-9a-f-]{36}|operator)$'::text))
constraint service_account_key_label_modified_by_not_null on service_account_key_label: NOT NULL modified_by
constraint service_account_key_label_name_must_have_1_to_255_characters on service_account_key_label: CHECK (((length(name) >= 1) AND (length(name) <= 255)))
constraint service_account_key_label_name_not_null on service_account_key_label: NOT NULL name
constraint service_account_key_label_organization_id_not_null on service_account_key_label: NOT NULL organization_id
constraint service_account_key_label_pkey on service_account_key_label: PRIMARY KEY (organization_id, id)
constraint service_account_key_label_updated_at_not_null on service_account_key_label: NOT NULL updated_at

-- indexes

CREATE INDEX audit_event_action_idx ON public.audit_event USING btree (organization_id, action, link, "position") WHERE (action <> 'resolve_credential'::text)
CREATE INDEX audit_event_credential_idx ON public.audit_event USING btree (organization_id, credential_id, link, "position") WHERE (credential_id IS NOT NULL)
CREATE INDEX audit_event_outcome_idx ON public.audit_event USING btree (organization_id, outcome, link, "position") WHERE (outcome <> 'allowed'::text)
CREATE UNIQUE INDEX audit_event_pkey ON public.audit_event USING btree (organization_id, link, "position")
CREATE INDEX audit_event_time_idx ON public.audit_event USING btree (organization_id, occurred_at, link) WHERE (("position" = 1) AND ((link % (16)::bigint) = 0))
CREATE INDEX audit_event_word_idx ON public.audit_event USING brin (request_id text_bloom_ops, run_id text_bloom_ops, flow_id text_bloom_ops, actor_id text_bloom_ops) WITH (pages_per_range='32', autosummarize='on')
CREATE UNIQUE INDEX audit_head_pkey ON public.audit_head USING btree (organization_id)
CREATE UNIQUE INDEX audit_signature_pkey ON public.audit_signature USING btree (organization_id, link)
CREATE UNIQUE INDEX audit_signing_pkey ON public.audit_signing USING btree (organization_id)
CREATE INDEX credential_key_version_idx ON public.credential USING btree (organization_id, key_version, id)
CREATE INDEX credential_newest_idx ON public.credential USING btree (organization_id, created_at DESC, id DESC) WHERE (deleted_at IS NULL)
CREATE INDEX credential_newest_of_provider_idx ON public.credential USING btree (organization_id, provider, created_at DESC, id DESC) WHERE (deleted_at IS NULL)
CREATE INDEX credential_newest_of_user_idx ON public.credential USING btree (organization_id, user_id, created_at DESC, id DESC) WHERE (deleted_at IS NULL)
CREATE UNIQUE INDEX credential_pkey ON public.credential USING btree (organization_id, id)
CREATE UNIQUE INDEX credential_counter_pkey ON public.credential_counter USING btree (organization_id, counter)
CREATE UNIQUE INDEX credential_event_pkey ON public.credential_event USING btree (organization_id, revision)
CREATE INDEX credential_event_head_changed_idx ON public.credential_event_head USING btree (changed_in)
CREATE UNIQUE INDEX credential_event_head_pkey ON public.credential_event_head USING btree (organization_id)
CREATE INDEX credential_event_head_unsent_idx ON public.credential_event_head USING btree (due_at) WHERE (sent < revision)
CREATE UNIQUE INDEX credential_limit_pkey ON public.credential_limit USING btree (organization_id, provider)
CREATE INDEX credential_previous_key_version_idx ON public.credential_previous USING btree (organization_id, key_version, credential_id)
CREATE UNIQUE INDEX credential_previous_pkey ON public.credential_previous USING btree (organization_id, credential_id)
CREATE INDEX credential_refresh_due_idx ON public.credential_refresh USING btree (provider, due_at) WHERE (due_at IS NOT NULL)
CREATE UNIQUE INDEX credential_refresh_pkey ON public.credential_refresh USING btree (organization_id, credential_id)
CREATE INDEX credential_use_newest_idx ON public.credential_use USING btree (organization_id, credential_id, last_used_at DESC)
CREATE UNIQUE INDEX credential_use_pkey ON public.credential_use USING btree (organization_id, credential_id, service_account_id, flow_id)
CREATE UNIQUE INDEX foreign_key_check_pkey ON public.foreign_key_check USING btree (check_value)
CREATE INDEX idempotency_record_expiry_idx ON public.idempotency_record USING btree (organization_id, expires_at)
CREATE UNIQUE INDEX idempotency_record_pkey ON public.idempotency_record USING btree (organization_id, actor_kind, actor_id, action, key_hash)
CREATE UNIQUE INDEX imported_credential_pkey ON public.imported_credential USING btree (organization_id, source)
CREATE UNIQUE INDEX key_registry_pkey ON public.key_registry USING btree (master_key_id)
CREATE INDEX oauth_authorization_expiry_idx ON public.oauth_authorization USING btree (organization_id, expires_at)
CREATE INDEX oauth_authorization_of_user_idx ON public.oauth_authorization USING btree (organization_id, user_id, created_at)
CREATE UNIQUE INDEX oauth_authorization_pkey ON public.oauth_authorization USING btree (organization_id, id)
CREATE INDEX oauth_state_authorization_idx ON public.oauth_state USING btree (organization_id, authorization_id)
CREATE UNIQUE INDEX oauth_state_pkey ON public.oauth_state USING btree (state_hash)
CREATE UNIQUE INDEX organization_key_one_seals_idx ON public.organization_key USING btree (organization_id) WHERE (state = 'sealing'::text)
CREATE UNIQUE INDEX organization_key_pkey ON public.organization_key USING btree (organization_id, version)
CREATE INDEX organization_key_place_of_master_key_idx ON public.organization_key_place USING btree (master_key_id, organization_id, version)
CREATE UNIQUE INDEX organization_key_place_pkey ON public.organization_key_place USING btree (organization_id, version)
CREATE UNIQUE INDEX primary_master_key_pkey ON public.primary_master_key USING btree (singleton)
CREATE UNIQUE INDEX purge_due_pkey ON public.purge_due USING btree (organization_id, credential_id, kind)
CREATE INDEX purge_due_since_idx ON public.purge_due USING btree (kind, since)
CREATE UNIQUE INDEX replica_pkey ON public.replica USING btree (id)
CREATE INDEX rotation_newest_idx ON public.rotation USING btree (started_at DESC, id)
CREATE UNIQUE INDEX rotation_one_at_a_time_idx ON public.rotation USING btree (kind, COALESCE(organization_id, '00000000-0000-0000-0000-000000000000'::uuid)) WHERE (state = ANY (ARRAY['running'::text, 'paused'::text, 'proving'::text, 'incomplete'::text]))
CREATE UNIQUE INDEX rotation_pkey ON public.rotation USING btree (id)
CREATE UNIQUE INDEX rotation_failure_pkey ON public.rotation_failure USING btree (rotation_id, place)
CREATE UNIQUE INDEX schema_compatibility_pkey ON public.schema_compatibility USING btree (singleton)
CREATE UNIQUE INDEX schema_migration_pkey ON public.schema_migration USING btree (id)
CREATE UNIQUE INDEX schema_migration_lock_pkey ON public.schema_migration_lock USING btree (index)
CREATE INDEX service_account_newest_idx ON public.service_account USING btree (organization_id, created_at DESC, id DESC) WHERE (deleted_at IS NULL)
CREATE UNIQUE INDEX service_account_pkey ON public.service_account USING btree (organization_id, id)
CREATE INDEX service_account_key_account_idx ON public.service_account_key USING btree (organization_id, service_account_id)
CREATE UNIQUE INDEX service_account_key_pkey ON public.service_account_key USING btree (organization_id, id)
CREATE UNIQUE INDEX service_account_key_prefix_must_be_unique ON public.service_account_key USING btree (token_prefix)
CREATE UNIQUE INDEX service_account_key_label_pkey ON public.service_account_key_label USING btree (organization_id, id)

-- policies

policy audit_event_of_organization on audit_event for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy audit_head_of_organization on audit_head for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy audit_signature_of_organization on audit_signature for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy credential_of_organization on credential for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy credential_counter_of_organization on credential_counter for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy credential_event_of_organization on credential_event for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy credential_limit_of_organization on credential_limit for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy credential_previous_of_organization on credential_previous for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy credential_use_of_organization on credential_use for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy idempotency_record_of_organization on idempotency_record for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy imported_credential_of_organization on imported_credential for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy oauth_authorization_of_organization on oauth_authorization for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy organization_key_of_organization on organization_key for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy service_account_of_organization on service_account for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))
policy service_account_key_label_of_organization on service_account_key_label for ALL to public using ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest))) with check ((organization_id IN ( SELECT unnest((NULLIF(current_setting('app.organizations'::text, true), ''::text))::uuid[]) AS unnest)))

-- triggers

CREATE TRIGGER audit_head_begins AFTER INSERT ON public.audit_head FOR EACH ROW EXECUTE FUNCTION remember_audit_chain()
CREATE TRIGGER credential_deletion AFTER UPDATE OF deleted_at ON public.credential FOR EACH ROW WHEN (((old.deleted_at IS DISTINCT FROM new.deleted_at) AND (new.sealed IS NOT NULL))) EXECUTE FUNCTION note_deletion()
CREATE TRIGGER credential_immutable BEFORE UPDATE ON public.credential FOR EACH ROW WHEN ((((((old.organization_id IS DISTINCT FROM new.organization_id) OR (old.id IS DISTINCT FROM new.id)) OR (old.provider IS DISTINCT FROM new.provider)) OR (old.user_id IS DISTINCT FROM new.user_id)) OR (old.created_at IS DISTINCT FROM new.created_at))) EXECUTE FUNCTION refuse_change()
CREATE TRIGGER credential_resealed_with_open_key BEFORE UPDATE ON public.credential FOR EACH ROW WHEN (((new.sealed IS NOT NULL) AND (old.secret_version IS DISTINCT FROM new.secret_version))) EXECUTE FUNCTION refuse_closed_key()
CREATE TRIGGER credential_sealed_with_open_key BEFORE INSERT ON public.credential FOR EACH ROW WHEN ((new.sealed IS NOT NULL)) EXECUTE FUNCTION refuse_closed_key()
CREATE TRIGGER credential_event_head_changed BEFORE UPDATE OF revision ON public.credential_event_head FOR EACH ROW WHEN ((old.revision IS DISTINCT FROM new.revision)) EXECUTE FUNCTION note_event_head()
CREATE TRIGGER credential_previous_kept AFTER INSERT OR UPDATE OF kept_until ON public.credential_previous FOR EACH ROW EXECUTE FUNCTION note_previous()
CREATE TRIGGER credential_previous_resealed_with_open_key BEFORE UPDATE ON public.credential_previous FOR EACH ROW WHEN ((old.secret_version IS DISTINCT FROM new.secret_version)) EXECUTE FUNCTION refuse_closed_key()
CREATE TRIGGER credential_previous_sealed_with_open_key BEFORE INSERT ON public.credential_previous FOR EACH ROW EXECUTE FUNCTION refuse_closed_key()
CREATE TRIGGER oauth_authorization_sealed_with_open_key BEFORE INSERT ON public.oauth_authorization FOR EACH ROW EXECUTE FUNCTION refuse_closed_key()
CREATE TRIGGER organization_key_displaced AFTER DELETE ON public.organization_key REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION displace_organization_key()
CREATE TRIGGER organization_key_immutable BEFORE UPDATE ON public.organization_key FOR EACH ROW WHEN (((((old.organization_id IS DISTINCT FROM new.organization_id) OR (old.version IS DISTINCT FROM new.version)) OR (old.commitment IS DISTINCT FROM new.commitment)) OR (old.created_at IS DISTINCT FROM new.created_at))) EXECUTE FUNCTION refuse_change()
CREATE TRIGGER organization_key_moved AFTER UPDATE ON public.organization_key REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION place_organization_key()
CREATE TRIGGER organization_key_placed AFTER INSERT ON public.organization_key REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION place_organization_key()

-- functions

CREATE OR REPLACE FUNCTION public.audit_record_digest(organization_id uuid, occurred_at timestamp with time zone, request_id text, actor_kind text, actor_id text, action text, outcome text, reason text, credential_id uuid, flow_id text, run_id text)
 RETURNS bytea
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN sha256(convert_to((json_build_array(organization_id, ((EXTRACT(epoch FROM occurred_at) * (1000)::numeric))::bigint, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id))::text, 'UTF8'::name))
CREATE OR REPLACE FUNCTION public.audit_record_digest(organization_id uuid, occurred_at timestamp with time zone, request_id text, actor_kind text, actor_id text, action text, outcome text, reason text, credential_id uuid, flow_id text, run_id text, subject_id uuid, key_id uuid)
 RETURNS bytea
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN sha256(convert_to((CASE WHEN ((subject_id IS NULL) AND (key_id IS NULL)) THEN json_build_array(organization_id, ((EXTRACT(epoch FROM occurred_at) * (1000)::numeric))::bigint, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id) ELSE json_build_array(organization_id, ((EXTRACT(epoch FROM occurred_at) * (1000)::numeric))::bigint, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id, subject_id, key_id) END)::text, 'UTF8'::name))
CREATE OR REPLACE FUNCTION public.audit_record_digest(organization_id uuid, occurred_at timestamp with time zone, request_id text, actor_kind text, actor_id text, action text, outcome text, reason text, credential_id uuid, flow_id text, run_id text, subject_id uuid, key_id uuid, calls integer)
 RETURNS bytea
 LANGUAGE sql
 STABLE PARALLEL SAFE
RETURN CASE WHEN (calls IS NULL) THEN audit_record_digest(organization_id, occurred_at, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id, subject_id, key_id) ELSE sha256(convert_to((json_build_array(organization_id, ((EXTRACT(epoch FROM occurred_at) * (1000)::numeric))::bigint, request_id, actor_kind, actor_id, action, outcome, reason, credential_id, flow_id, run_id, subject_id, key_id, calls))::text, 'UTF8'::name)) END
CREATE OR REPLACE FUNCTION public.displace_organization_key()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
begin
  delete from organization_key_place p using removed o where p.organization_id = o.organization_id and p.version = o.version;
  return null;
end $function$
CREATE OR REPLACE FUNCTION public.note_deletion()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  if new.deleted_at is not null then
    insert into purge_due (organization_id, credential_id, kind, since) values (new.organization_id, new.id, 'deleted', new.deleted_at)
      on conflict (organization_id, credential_id, kind) do update set since = excluded.since;
  else
    delete from purge_due where organization_id = new.organization_id and credential_id = new.id and kind = 'deleted';
  end if;
  return null;
end $function$
CREATE OR REPLACE FUNCTION public.note_event_head()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  new.changed_in := pg_current_xact_id();
  return new;
end $function$
CREATE OR REPLACE FUNCTION public.note_previous()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into purge_due (organization_id, credential_id, kind, since) values (new.organization_id, new.credential_id, 'previous', new.kept_until)
    on conflict (organization_id, credential_id, kind) do update set since = excluded.since;
  return null;
end $function$
CREATE OR REPLACE FUNCTION public.place_organization_key()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
declare
  primary_id text;
  strays boolean := false;
begin
  -- Held until the commit: a promotion waits for whoever wraps, and whoever wraps after it sees the new key.
  select master_key_id into primary_id from primary_master_key for share;
  if tg_op = 'INSERT' then
    select exists (select from added n where n.master_key_id <> primary_id) into strays;
    insert into organization_key_place select organization_id, version, master_key_id from added where master_key_id is not null;
  else
    select exists (select from added n join removed o using (organization_id, version)
      where n.wrapped is distinct from o.wrapped and n.master_key_id <> primary_id) into strays;
    update organization_key_place p set master_key_id = n.master_key_id from added n
      where p.organization_id = n.organization_id and p.version = n.version and p.master_key_id <> n.master_key_id;
    delete from organization_key_place p using added n where p.organization_id = n.organization_id and p.version = n.version and n.master_key_id is null;
  end if;
  if strays then
    raise exception using errcode = '23514', message = 'only the primary master key wraps', table = 'organization_key',
      constraint = 'organization_key_must_be_wrapped_under_the_primary_key';
  end if;
  return null;
end $function$
CREATE OR REPLACE FUNCTION public.refuse_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception using errcode = '23514', message = 'immutable columns cannot change', table = tg_table_name, constraint = tg_name;
end $function$
CREATE OR REPLACE FUNCTION public.refuse_closed_key()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  -- Numbered before it looks, so that whoever closes the key can tell when everyone who saw it open has ended.
  perform pg_current_xact_id();
  if exists (select from public.organization_key k where k.organization_id = new.organization_id
    and k.version = public.sealed_key_version(new.sealed) and k.state in ('closed', 'retired')) then
    raise exception using errcode = '23514', message = 'the organization key is closed', table = tg_table_name, constraint = 'sealed_value_must_not_name_a_closed_key';
  end if;
  return new;
end $function$
CREATE OR REPLACE FUNCTION public.refuse_credential_in_use(organization uuid, credential uuid, within_seconds integer)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
begin
  if within_seconds > 0 then
    -- Whoever has recorded a use, and has not committed it, holds this lock. The query below sees what was committed by then.
    perform from audit_head h where h.organization_id = organization for update;
    if (select e.occurred_at >= clock_timestamp() - make_interval(secs => within_seconds) from audit_event e
        where e.organization_id = organization and e.credential_id = credential and e.action in ('resolve_credential', 'report_credential_uses') and e.outcome = 'allowed'
        order by e.link desc, e.position desc limit 1) then
      raise exception using errcode = '23514', message = 'the credential was used lately', table = 'credential', constraint = 'credential_must_not_be_in_use';
    end if;
  end if;
  return true;
end $function$
CREATE OR REPLACE FUNCTION public.refuse_credential_limit(provider_has_room boolean)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
begin
  raise exception using errcode = '23514', message = 'limit of active credentials reached', table = 'credential_counter',
    constraint = case when provider_has_room then 'credential_limit_per_user' else 'credential_limit_per_provider' end;
end $function$
CREATE OR REPLACE FUNCTION public.remember_audit_chain()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  insert into audit_signing (organization_id) values (new.organization_id) on conflict do nothing;
  return null;
end $function$
CREATE OR REPLACE FUNCTION public.sealed_key_version(sealed bytea)
 RETURNS bigint
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (length(sealed) >= 7) THEN (((((get_byte(sealed, 3))::bigint << 24) + (get_byte(sealed, 4) << 16)) + (get_byte(sealed, 5) << 8)) + get_byte(sealed, 6)) ELSE NULL::bigint END

-- comments

comment on function public.audit_record_digest(pg_catalog.uuid,timestamp with time zone,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.uuid,pg_catalog.text,pg_catalog.text): Digest of one record: SHA-256 of the UTF-8 text of a JSON array of its fields, time in milliseconds since 1970.
comment on function public.audit_record_digest(pg_catalog.uuid,timestamp with time zone,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.uuid,pg_catalog.text,pg_catalog.text,pg_catalog.uuid,pg_catalog.uuid): As the one with eleven fields, which it equals where the last two are null; else the JSON array has thirteen.
comment on function public.audit_record_digest(pg_catalog.uuid,timestamp with time zone,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.text,pg_catalog.uuid,pg_catalog.text,pg_catalog.text,pg_catalog.uuid,pg_catalog.uuid,integer): As the one with thirteen fields, which it equals where the last is null; else the JSON array has fourteen.
comment on function public.displace_organization_key(): The same for rows that are deleted, which only the owner may do.
comment on function public.note_deletion(): Keeps purge_due in step with deletions, by whatever statement they come.
comment on function public.note_event_head(): Notes the transaction that wrote the newest event, by whatever statement it came.
comment on function public.note_previous(): Keeps purge_due in step with kept secrets.
comment on function public.place_organization_key(): Keeps organization_key_place, and refuses keys that are wrapped under another master key than the primary one. Runs as its owner, so that the application role cannot write the places itself.
comment on function public.refuse_change(): Trigger that refuses the change it fires on.
comment on function public.refuse_closed_key(): Refuses a secret that a replica has sealed with a key which a rotation has closed meanwhile.
comment on function public.refuse_credential_in_use(pg_catalog.uuid,pg_catalog.uuid,integer): Raises where the credential was resolved, or uses of it were reported, within so many seconds; 0 does not ask. Afterwards no use can be recorded before the end of the transaction.
comment on function public.refuse_credential_limit(boolean): Raises, so that nothing of a refused creation is counted; the constraint name says which limit.
comment on function public.remember_audit_chain(): Notes an organization when its chain begins; later links do not come here.
comment on function public.sealed_key_version(pg_catalog.bytea): The version of the organization key that a sealed value names, read from its bytes.
comment on table public.audit_event: Who did what with which credential. Append-only: nothing in it is ever changed.
comment on table public.audit_head: The newest link of each organization's chain. Its row is locked until the link is committed, which gives the links their order.
comment on table public.audit_signature: Signed heads of the audit chains: a trail that ends before the newest of them has been cut.
comment on table public.audit_signing: Organizations that have an audit chain, so that the heads of all of them can be signed. Holds ids only.
comment on table public.credential: Credentials of integrations: what is known about them, and the sealed secret.
comment on table public.credential_counter: Active credentials, counted in the transaction that creates or deletes one, so that limits hold under concurrency.
comment on table public.credential_event: What happened to credentials, in order: the outbox of webhooks and of the watch feed. Written in the transaction of what happened, never changed, and removed from the oldest on once its time is over.
comment on table public.credential_event_head: The newest event of each organization, and how far webhooks have come. Its row is locked until an event is committed, which gives the events their order. Read before an organization is known, therefore without row-level security.
comment on table public.credential_limit: Limits of active credentials that operators set, in the place of the installation's own.
comment on table public.credential_previous: The secret before the newest one, where its update asked to keep it for a while.
comment on table public.credential_refresh: When each OAuth credential is to be looked after, and who does so now. Read before an organization is known, therefore without row-level security and without any secret.
comment on table public.credential_use: Who resolves a credential, for which flow, and when last. Written behind the calls, a moment late; the audit trail is exact.
comment on table public.foreign_key_check: Keys of other systems from which secrets were imported, by a value that reveals nothing of them: none may be a master key.
comment on table public.idempotency_record: Writes that came with an idempotency key, each committed together with its effect. Holds no secret.
comment on table public.imported_credential: Secrets that were taken over from another system, so that none is taken over twice.
comment on table public.key_registry: Master keys that were ever loaded, by a value that reveals nothing of them, so that a wrong key is noticed at the start.
comment on table public.oauth_authorization: Authorizations in progress: begun by a user, not yet answered by the provider. A row is deleted by whoever uses it.
comment on table public.oauth_state: Which authorization a state belongs to. Found before an organization is known, therefore without row-level security and without any secret.
comment on table public.organization_key: Keys of organizations, each wrapped under a master key. Committed before anything is sealed with them.
comment on table public.organization_key_place: Which master key wraps which organization key: ids alone, because a rotation has to find the keys of all organizations. Kept by a trigger.
comment on table public.primary_master_key: The one master key that wraps. A promotion locks the row; whoever wraps or joins the replicas locks it in share mode, so that all of them agree.
comment on table public.purge_due: Sealed secrets that nothing needs any more, by credential and since when, so that they are found without looking at any organization.
comment on table public.replica: Processes that serve, and which master keys each has loaded. One that is silent past alive_until is taken for dead.
comment on table public.rotation: Rotations of keys. Ids, counts and times alone; how much is left is read from the rows that are moved.
comment on table public.rotation_failure: Rows that do not open, as a rotation found them last; ids and a word.
comment on table public.schema_compatibility: Which code can work with this schema: whoever knows the migration that is named here, whatever else the database has. Set by migrations that take something away.
comment on table public.service_account: Callers that are programs, such as executors of flows.
comment on table public.service_account_key: API keys and client certificates. Found by prefix before an organization is known, therefore without row-level security and without any secret.
comment on table public.service_account_key_label: What people call an API key, and when it was last used: what the look-up of a key has no need of.
comment on table column public.audit_event."position": Place in the link, from 1.
comment on table column public.audit_event.actor_id: User, service account, or an operator's subject.
comment on table column public.audit_event.calls: Calls that the record stands for, where they are not recorded one by one; null for the one that request_id names.
comment on table column public.audit_event.hash: Hash of the link: sha256(hash of the link before ‖ sha256(digests of the link's records, in order)); 32 zero bytes come before link 1.
comment on table column public.audit_event.key_id: API key or certificate by which a service account proved who it is.
comment on table column public.audit_event.link: Link of the organization's chain: the records that one transaction committed together. Counts from 1 without gaps.
comment on table column public.audit_event.outcome: A call that was allowed and did not end as its caller wished has a second record, which is cancelled or failed.
comment on table column public.audit_event.reason: Why it was refused, cancelled or failed; null where it was allowed.
comment on table column public.audit_event.request_id: ULID of the request.
comment on table column public.audit_event.subject_id: What it was done to, where that is no credential: a service account or an API key.
comment on table column public.audit_head.digest: sha256(digests of the link's records, in order).
comment on table column public.audit_head.hash: Hash of the link, as in audit_event.
comment on table column public.audit_signature.hash: Hash of that link.
comment on table column public.audit_signature.key_id: Beginning of the SHA-256 of the public key, in hexadecimal.
comment on table column public.audit_signature.link: The link that was the newest when it was signed.
comment on table column public.audit_signature.signature: Ed25519 over organization, link, hash and time.
comment on table column public.credential.account_email: Account at the provider, where it is known.
comment on table column public.credential.account_id: Account at the provider that authorized, where our flow made the credential.
comment on table column public.credential.created_at: Immutable. Milliseconds, as callers see it.
comment on table column public.credential.credential_type: Shape of the secret; bound into the sealed value.
comment on table column public.credential.deleted_at: Hidden from every read since then.
comment on table column public.credential.granted_scopes: What the provider said it granted; null where it said nothing.
comment on table column public.credential.id: Immutable; bound into the sealed value.
comment on table column public.credential.key_version: Version of the organization key that the sealed value itself names; generated, so that it cannot differ from the bytes.
comment on table column public.credential.modified_by: Who wrote last: a user's id, or the word for every service account or for the service itself.
comment on table column public.credential.name: Name for people.
comment on table column public.credential.oauth_origin: Whose client the tokens belong to: posted by a caller, or made by our own authorization flow.
comment on table column public.credential.organization_id: Tenant. Immutable; bound into the sealed value.
comment on table column public.credential.provider: System the credential connects to. Immutable; bound into the sealed value.
comment on table column public.credential.purged_at: The sealed secret is gone since then.
comment on table column public.credential.renewable: Whether the service can renew the access token without a person.
comment on table column public.credential.requested_scopes: What our flow asked for.
comment on table column public.credential.revision: Changes with every write by a caller.
comment on table column public.credential.sealed: Sealed secret, first byte 0xC5; null only once purged. Stored uncompressed: ciphertext does not compress.
comment on table column public.credential.secret_version: Changes with every change of the secret, by whomever; bound into the sealed value.
comment on table column public.credential.status: Whether it can be used.
comment on table column public.credential.status_reason: Why it cannot; a stable word.
comment on table column public.credential.status_since: When status or its reason last changed.
comment on table column public.credential.token_expires_at: When the access token expires, where there is one.
comment on table column public.credential.updated_at: Strictly increasing with every write by a caller.
comment on table column public.credential.user_id: User who created it and whose limit it counts against. Immutable.
comment on table column public.credential_counter.counter: provider:<provider> for the organization, or user:<user id>.
comment on table column public.credential_counter.n: Rows of credential that are not deleted.
comment on table column public.credential_event.credential_revision: The credential's own revision after the event; null for events of before it was kept.
comment on table column public.credential_event.revision: Counts an organization's events from 1 without gaps, in the order in which they were committed.
comment on table column public.credential_event.secret_version: Version of the secret after the event.
comment on table column public.credential_event_head.attempts: Failed deliveries of the event after the sent one.
comment on table column public.credential_event_head.changed_in: Transaction that wrote the newest event, by which the watch feed finds the organizations in which something happened, however many there are.
comment on table column public.credential_event_head.due_at: When the next delivery is to be tried.
comment on table column public.credential_event_head.fence: Counts the leases. A holder writes only while the fence and the token are its own.
comment on table column public.credential_event_head.pruned: Newest event that was removed because its time was over; nobody can go on from before it.
comment on table column public.credential_event_head.sent: Newest event that the webhook endpoint has accepted, or that was given up.
comment on table column public.credential_previous.account_id: Account at the provider that the grant belongs to, where the service obtained it.
comment on table column public.credential_previous.granted_scopes: Scopes that the provider said it granted.
comment on table column public.credential_previous.kept_until: Cannot be gone back to since then, and is removed soon after.
comment on table column public.credential_previous.key_version: Version of the organization key that the sealed value itself names; generated, so that it cannot differ from the bytes.
comment on table column public.credential_previous.oauth_origin: Who obtained the grant of that secret: flow, the service itself, or posted, the caller.
comment on table column public.credential_previous.requested_scopes: Scopes that were asked for.
comment on table column public.credential_previous.sealed: Sealed secret, bound to the version it had.
comment on table column public.credential_refresh.attempts: Failures since the last success.
comment on table column public.credential_refresh.due_at: When its token is to be renewed, or its status to be changed; null where nothing is left to do.
comment on table column public.credential_refresh.fence: Counts the leases. A holder writes only while the fence and the token are its own.
comment on table column public.credential_refresh.intent_fence: Fence of the renewal that was journaled last, until its outcome is stored: what it brings is still taken after its lease, as long as nobody else has sent anything.
comment on table column public.credential_refresh.intent_version: Journal: a renewal was begun with the secret of this version and its outcome is not known yet.
comment on table column public.credential_refresh.lease_token: Who holds the lease; drawn anew for each.
comment on table column public.credential_refresh.lease_until: When others may take the lease.
comment on table column public.credential_refresh.provider: Provider of the credential, by which work is capped.
comment on table column public.credential_refresh.tried_at: When the last attempt ended; null before the first with this secret.
comment on table column public.credential_use.flow_id: Flow that the caller named; empty where it named none.
comment on table column public.idempotency_record.answer: The row that the answer was made of.
comment on table column public.idempotency_record.key_hash: SHA-256 of the key that the caller chose.
comment on table column public.idempotency_record.key_version: Version of the organization key that request_hash was made with.
comment on table column public.idempotency_record.request_hash: HMAC-SHA-256 of the request under the organization's fingerprint key, so that a secret in it cannot be guessed from here.
comment on table column public.imported_credential.sealed_at: When the other system sealed it.
comment on table column public.imported_credential.source: Which row of the other system it was.
comment on table column public.key_registry.canary: A key that wraps nothing, wrapped under the master key: a start unwraps it, to see that the key it has loaded is the right one and works.
comment on table column public.key_registry.canary_commitment: What must be derived from the canary after unwrapping.
comment on table column public.key_registry.retired_at: Nothing opens under the key since then, and it can never be the primary one again.
comment on table column public.oauth_authorization.browser_hash: SHA-256 of the 256 random bits in the cookie of the browser in which it began; null where it began outside one.
comment on table column public.oauth_authorization.expires_at: By the clock of the database.
comment on table column public.oauth_authorization.id: Bound into the sealed value.
comment on table column public.oauth_authorization.provider: System it connects to; bound into the sealed value.
comment on table column public.oauth_authorization.sealed: Code verifier, nonce, scopes, redirect and the credential that is authorized anew. Lives shorter than any rotation of keys, so that it is never sealed anew.
comment on table column public.oauth_authorization.user_id: User who began it.
comment on table column public.oauth_state.state_hash: SHA-256 of the state, which has 256 random bits; the state itself is not stored.
comment on table column public.organization_key.commitment: Must equal the commitment that is derived from the key after unwrapping, before the key is used.
comment on table column public.organization_key.destroyed_at: Nothing sealed with the key can be opened since then.
comment on table column public.organization_key.master_key_id: Master key that wraps it; always the id that the wrapped bytes themselves name.
comment on table column public.organization_key.state: sealing: what is new is sealed with it; opening: values are still written with it by replicas that have not noticed; closed: none are written any more; retired: nothing opens under it.
comment on table column public.organization_key.version: Named in every value that is sealed with the key.
comment on table column public.organization_key.wrapped: The key, wrapped, first byte 0xC4; null once the organization was destroyed.
comment on table column public.rotation.closed_before: Transactions from this one on have seen the old organization keys closed: once every older one has ended, no value can appear under them.
comment on table column public.rotation.emptied: Master keys that it empties, and that are retired with it.
comment on table column public.rotation.holder: Replica that works on it, until held_until unless it reports again.
comment on table column public.rotation.proof: SHA-256 over the counts and the digest of every row that was read back; the audit record of the proof names it.
comment on table column public.service_account.deleted_at: Hidden and refused since then; the row stays, so that its id is never anybody else.
comment on table column public.service_account.granted_credentials: Credentials it may touch, besides those of granted_providers.
comment on table column public.service_account.granted_providers: Providers whose credentials it may touch, besides granted_credentials; both null for every credential of the organization.
comment on table column public.service_account.status: Only an active account is let in.
comment on table column public.service_account_key.token_hash: SHA-256 of the key, which has 256 random bits; the key itself is not stored. Of a certificate, its fingerprint.
comment on table column public.service_account_key.token_prefix: Public part of the key, by which it is found; of a certificate, crt_ and the beginning of its fingerprint.
comment on table column public.service_account_key_label.last_used_at: Written behind the calls, a moment late.
comment on type public.ciphertext: Sealed bytes. Every column of this type must have a way to be sealed anew when keys rotate.

-- grants

grant delete, insert, select on credential_event to credentials_app
grant delete, insert, select on credential_limit to credentials_app
grant delete, insert, select on credential_refresh to credentials_app
grant delete, insert, select on credential_use to credentials_app
grant delete, insert, select on idempotency_record to credentials_app
grant delete, insert, select on oauth_authorization to credentials_app
grant delete, insert, select, update on credential_previous to credentials_app
grant delete, insert, select, update on purge_due to credentials_app
grant delete, insert, select, update on replica to credentials_app
grant delete, insert, select, update on rotation_failure to credentials_app
grant execute on function audit_record_digest(uuid,timestamp with time zone,text,text,text,text,text,text,uuid,text,text) to public
grant execute on function audit_record_digest(uuid,timestamp with time zone,text,text,text,text,text,text,uuid,text,text,uuid,uuid) to public
grant execute on function audit_record_digest(uuid,timestamp with time zone,text,text,text,text,text,text,uuid,text,text,uuid,uuid,integer) to public
grant execute on function note_deletion() to public
grant execute on function note_event_head() to public
grant execute on function note_previous() to public
grant execute on function refuse_change() to public
grant execute on function refuse_closed_key() to public
grant execute on function refuse_credential_in_use(uuid,uuid,integer) to public
grant execute on function refuse_credential_limit(boolean) to public
grant execute on function remember_audit_chain() to public
grant execute on function sealed_key_version(bytea) to public
grant insert, select on audit_event to credentials_app
grant insert, select on audit_head to credentials_app
grant insert, select on audit_signature to credentials_app
grant insert, select on audit_signing to credentials_app
grant insert, select on credential to credentials_app
grant insert, select on credential_counter to credentials_app
grant insert, select on credential_event_head to credentials_app
grant insert, select on foreign_key_check to credentials_app
grant insert, select on imported_credential to credentials_app
grant insert, select on key_registry to credentials_app
grant insert, select on oauth_state to credentials_app
grant insert, select on organization_key to credentials_app
grant insert, select on primary_master_key to credentials_app
grant insert, select on service_account to credentials_app
grant insert, select on service_account_key to credentials_app
grant insert, select on service_account_key_label to credentials_app
grant insert, select, update on rotation to credentials_app
grant select on organization_key_place to credentials_app
grant select on schema_compatibility to credentials_app
grant select on schema_migration to credentials_app
grant update (canary, canary_commitment, retired_at) on key_registry to credentials_app
grant update (credential_type, name, account_email, status, status_reason, token_expires_at, sealed, secret_version, revision, updated_at, modified_by, deleted_at, purged_at, oauth_origin, account_id, requested_scopes, granted_scopes, renewable, status_since) on credential to credentials_app
grant update (due_at, attempts, fence, lease_token, lease_until, intent_version, intent_fence, tried_at) on credential_refresh to credentials_app
grant update (last_run_id, last_used_at, uses) on credential_use to credentials_app
grant update (link, digest, hash) on audit_head to credentials_app
grant update (master_key_id, promoted_at) on primary_master_key to credentials_app
grant update (n) on credential_counter to credentials_app
grant update (n) on credential_limit to credentials_app
grant update (name, description, status, granted_providers, granted_credentials, updated_at, modified_by, deleted_at) on service_account to credentials_app
grant update (name, description, updated_at, modified_by, last_used_at) on service_account_key_label to credentials_app
grant update (revision, sent, due_at, attempts, fence, lease_token, lease_until, pruned) on credential_event_head to credentials_app
grant update (revoked_at) on service_account_key to credentials_app
grant update (wrapped, master_key_id, destroyed_at, state) on organization_key to credentials_app
