-- migrate:up

-- Which migrations have run is no secret: `constitution doctor --deployment` compares it with the release's own, as any role.
GRANT SELECT ON schema_migrations TO constitution_service, constitution_reader;

-- migrate:down

REVOKE SELECT ON schema_migrations FROM constitution_service, constitution_reader;
