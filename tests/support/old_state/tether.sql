BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE api_keys (
	key_id TEXT NOT NULL, 
	tenant_id TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	prefix TEXT NOT NULL, 
	scopes TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	revoked_at BIGINT, name TEXT DEFAULT '' NOT NULL, 
	CONSTRAINT pk_api_keys PRIMARY KEY (key_id), 
	CONSTRAINT fk_api_keys_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id), 
	CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
INSERT INTO "api_keys" VALUES('key_0a77bb579a6a3886','default','85df42f7562947def2d5c5e8d875b362e4bc3548d2476a5b8b52d1a184c6ad85','tk_NTOzm','admin,read,submit',1795933444456,NULL,'tether up');
CREATE TABLE attempts (
	job_id TEXT NOT NULL, 
	dispatch INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	draw_id TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	run INTEGER NOT NULL, 
	"offset" INTEGER NOT NULL, 
	error TEXT, 
	ended_at BIGINT NOT NULL, 
	CONSTRAINT pk_attempts PRIMARY KEY (job_id, dispatch, attempt, draw_id), 
	CONSTRAINT fk_attempts_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id)
);
INSERT INTO "attempts" VALUES('01a225f9-b00b-7937-bf56-55b62b608bae',1,1,'edaa02c77dc0f7bc.1:1','edaa02c77dc0f7bc.1','succeeded',0,8,NULL,1795933450332);
CREATE TABLE core (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	CONSTRAINT pk_core PRIMARY KEY (name)
);
INSERT INTO "core" VALUES('epoch',1);
INSERT INTO "core" VALUES('trust',1795933449504);
CREATE TABLE counters (
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	held INTEGER NOT NULL, 
	CONSTRAINT pk_counters PRIMARY KEY (kind, name)
);
INSERT INTO "counters" VALUES('capacity','gpu.cpu.local.counter-1004bde7',0);
INSERT INTO "counters" VALUES('quota','default',2);
INSERT INTO "counters" VALUES('capacity','gpu.cpu.local.slow-ce111a1b',2);
CREATE TABLE dead_letters (
	job_id TEXT NOT NULL, 
	tenant_id TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	retryable BOOLEAN NOT NULL, 
	retry_token TEXT NOT NULL, 
	history TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	retried_as TEXT, 
	CONSTRAINT pk_dead_letters PRIMARY KEY (job_id), 
	CONSTRAINT fk_dead_letters_job_id FOREIGN KEY(job_id) REFERENCES jobs (job_id), 
	CONSTRAINT uq_dead_letters_retry_token UNIQUE (retry_token)
);
CREATE TABLE dispatches (
	job_id TEXT NOT NULL, 
	dispatch INTEGER NOT NULL, 
	pool TEXT NOT NULL, 
	due_at BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_dispatches PRIMARY KEY (job_id, dispatch)
);
CREATE TABLE fleet_keys (
	pub_key TEXT NOT NULL, 
	worker_id TEXT NOT NULL, 
	name TEXT DEFAULT '' NOT NULL, 
	added_at BIGINT NOT NULL, 
	revoked_at BIGINT, 
	CONSTRAINT pk_fleet_keys PRIMARY KEY (pub_key)
);
INSERT INTO "fleet_keys" VALUES('8d4d7d63bea260f96ceab1b01dc6d5252cb21f91e54eb313a91feb5ed017f45f','edaa02c77dc0f7bc','worker-1',1795933449504,NULL);
CREATE TABLE holds (
	job_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	name TEXT NOT NULL, 
	dispatch INTEGER NOT NULL, 
	amount INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_holds PRIMARY KEY (job_id, kind), 
	CONSTRAINT ck_holds_kind CHECK (kind IN ('quota', 'capacity'))
);
INSERT INTO "holds" VALUES('01a225f9-b0c3-7d17-a568-2cc0a59b120a','quota','default',1,1,1795933450435);
INSERT INTO "holds" VALUES('01a225f9-b0c3-7d17-a568-2cc0a59b120a','capacity','gpu.cpu.local.slow-ce111a1b',1,1,1795933450435);
INSERT INTO "holds" VALUES('01a225f9-b1f0-73d7-99cd-eb7ec02a9c11','quota','default',1,1,1795933450736);
INSERT INTO "holds" VALUES('01a225f9-b1f0-73d7-99cd-eb7ec02a9c11','capacity','gpu.cpu.local.slow-ce111a1b',1,1,1795933450736);
CREATE TABLE jobs (
	job_id TEXT NOT NULL, 
	tenant_id TEXT NOT NULL, 
	correlation_id TEXT NOT NULL, 
	retry_token TEXT NOT NULL, 
	retry_of TEXT, 
	digest TEXT NOT NULL, 
	model TEXT NOT NULL, 
	priority TEXT NOT NULL, 
	labels TEXT NOT NULL, 
	body TEXT NOT NULL, 
	state TEXT NOT NULL, 
	dispatch INTEGER NOT NULL, 
	pool TEXT, 
	weight FLOAT NOT NULL, 
	not_before BIGINT NOT NULL, 
	deadline BIGINT NOT NULL, 
	cost INTEGER NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	finished_at BIGINT, 
	requested TEXT, 
	requested_at BIGINT, 
	error TEXT, 
	result TEXT, 
	input_tokens INTEGER DEFAULT '0' NOT NULL, 
	output_tokens INTEGER DEFAULT '0' NOT NULL, 
	due_at BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_jobs PRIMARY KEY (job_id), 
	CONSTRAINT ck_jobs_requested CHECK (requested IN ('cancelled', 'expired')), 
	CONSTRAINT ck_jobs_state CHECK (state IN ('accepted', 'parked', 'placed', 'running', 'waiting_retry', 'succeeded', 'dead', 'cancelled', 'expired')), 
	CONSTRAINT ck_jobs_dispatch CHECK (dispatch >= 0), 
	CONSTRAINT fk_jobs_tenant_id FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id), 
	CONSTRAINT uq_jobs_tenant_id_correlation_id_retry_token UNIQUE (tenant_id, correlation_id, retry_token)
);
INSERT INTO "jobs" VALUES('01a225f9-b00b-7937-bf56-55b62b608bae','default','6cc9b6f0739c457a804d4fb6331f870d','6cc9b6f0739c457a804d4fb6331f870d',NULL,'fc967f12a5e5a67f49604548bbf99377bcab6e4cee2248c86832e48e54f2db95','counter','standard','{"was":"finished"}','{"adapter":"","correlation_id":"6cc9b6f0739c457a804d4fb6331f870d","model":"counter","prompt":"one two three","sampling":{"max_tokens":256,"seed":0,"stop":[],"temperature":0.0,"top_k":0,"top_p":1.0},"tenant":"default","traceparent":"00-a21f009985ca81af793fd8f56678280e-be1a962b3be99552-01","v":1,"version":"1"}','succeeded',1,'gpu.cpu.local.counter-1004bde7',1.0,0,0,4,0,1795933450251,1795933450336,1795933450336,NULL,NULL,NULL,'{"ids":[5967,9755,29510,9536,13952,13359,22415,17589],"texts":["nettle"," fjord"," amber"," umber"," quartz"," valley"," delta"," nettle"],"run":0,"finish_reason":"stop"}',3,8,1795933451251);
INSERT INTO "jobs" VALUES('01a225f9-b0c3-7d17-a568-2cc0a59b120a','default','76481ea7a6844ef490544d439359d7cc','76481ea7a6844ef490544d439359d7cc',NULL,'a6f536eed13150b3a85496db0aec82018703d673c524add7f250fe5a21de1fa6','slow','standard','{"was":"running"}','{"adapter":"","correlation_id":"76481ea7a6844ef490544d439359d7cc","model":"slow","prompt":"four five","sampling":{"max_tokens":256,"seed":0,"stop":[],"temperature":0.0,"top_k":0,"top_p":1.0},"tenant":"default","traceparent":"00-afdeaa6f6e4bfde77af90ff51d909b3b-4a1003bdbf007129-01","v":1,"version":"1"}','placed',1,'gpu.cpu.local.slow-ce111a1b',1.0,0,0,3,0,1795933450435,1795933450435,NULL,NULL,NULL,NULL,NULL,0,0,1795933451435);
INSERT INTO "jobs" VALUES('01a225f9-b1f0-73d7-99cd-eb7ec02a9c11','default','057a26c93af3496cb85c0e9245b7c41b','057a26c93af3496cb85c0e9245b7c41b',NULL,'846c5dfff4cd13f02e8480a1f43223952a32b4aa5ac6866ff2038f3bcc1dd2f3','slow','standard','{"was":"waiting"}','{"adapter":"","correlation_id":"057a26c93af3496cb85c0e9245b7c41b","model":"slow","prompt":"six","sampling":{"max_tokens":256,"seed":0,"stop":[],"temperature":0.0,"top_k":0,"top_p":1.0},"tenant":"default","traceparent":"00-ac9c233cc72d458dfef1702781d98626-dc050d23d3b8ace5-01","v":1,"version":"1"}','placed',1,'gpu.cpu.local.slow-ce111a1b',1.0,0,0,1,0,1795933450736,1795933450736,NULL,NULL,NULL,NULL,NULL,0,0,1795933451736);
CREATE TABLE loop_leases (
	name TEXT NOT NULL, 
	holder TEXT NOT NULL, 
	until BIGINT NOT NULL, 
	CONSTRAINT pk_loop_leases PRIMARY KEY (name)
);
INSERT INTO "loop_leases" VALUES('deadlines','b0331cc780c471f4',1795933453645);
INSERT INTO "loop_leases" VALUES('outbox','b0331cc780c471f4',1795933453645);
INSERT INTO "loop_leases" VALUES('pruning','b0331cc780c471f4',1795933453645);
INSERT INTO "loop_leases" VALUES('reconcile','b0331cc780c471f4',1795933453645);
INSERT INTO "loop_leases" VALUES('trust-mirror','b0331cc780c471f4',1795933453645);
INSERT INTO "loop_leases" VALUES('waiting','b0331cc780c471f4',1795933453645);
CREATE TABLE tenants (
	tenant_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	weight FLOAT DEFAULT '1' NOT NULL, 
	quota INTEGER, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_tenants PRIMARY KEY (tenant_id), 
	CONSTRAINT ck_tenants_quota CHECK (quota >= 0), 
	CONSTRAINT ck_tenants_weight CHECK (weight > 0)
);
INSERT INTO "tenants" VALUES('default','default',1.0,NULL,0);
CREATE INDEX ix_dispatches_due_at ON dispatches (due_at);
CREATE INDEX ix_api_keys_tenant_id ON api_keys (tenant_id);
CREATE INDEX ix_jobs_deadline ON jobs (deadline) WHERE state IN ('accepted', 'parked', 'placed', 'running', 'waiting_retry') AND deadline > 0;
CREATE INDEX ix_jobs_finished_at ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX ix_jobs_in_redis ON jobs (job_id) WHERE state IN ('placed', 'running');
CREATE INDEX ix_jobs_requested ON jobs (requested_at) WHERE state IN ('accepted', 'parked', 'placed', 'running', 'waiting_retry') AND requested IS NOT NULL;
CREATE INDEX ix_jobs_tenant_id_job_id ON jobs (tenant_id, job_id);
CREATE INDEX ix_jobs_waiting ON jobs (job_id, due_at) WHERE state IN ('parked', 'waiting_retry');
CREATE INDEX ix_dead_letters_tenant_id_job_id ON dead_letters (tenant_id, job_id);
COMMIT;
