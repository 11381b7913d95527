// graphile-worker's own tables, as its migrations make them: node graphile.mjs
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.DRIVERS}/`);
const { runMigrations } = require('graphile-worker');

const schema = process.env.SCHEMA ?? 'graphile_worker';
await runMigrations({ connectionString: process.env.DATABASE_URL, schema });
console.log('all ok');
process.exit(0);
