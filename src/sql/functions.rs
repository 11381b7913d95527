//! What is known of functions by their name alone. It wins over what the catalog says.

use super::verdict::Effects;

/// The consequences of calling a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Changes nothing and may run anywhere, though it is volatile.
    Harmless,
    /// Locks or settings of the session or transaction: names no object.
    Neutral(Effects),
    /// `set_config(name, value, is_local)`: the arguments say more.
    SetConfig,
    /// `pg_notify(channel, payload)`.
    Notify,
    /// Depends on the server, the backend or the session, or acts on them.
    Denied(Effects),
    /// Reads server statistics, which belong to the primary.
    Statistics,
}

/// What is known of the function of a name.
pub(super) fn known(name: &str) -> Option<Known> {
    if HARMLESS.contains(&name) {
        return Some(Known::Harmless);
    }
    match name {
        "set_config" => return Some(Known::SetConfig),
        "pg_notify" => return Some(Known::Notify),
        "pg_listening_channels" => return Some(Known::Denied(Effects::ASKS_CHANNELS)),
        "currval" | "lastval" => return Some(Known::Denied(Effects::ASKS_SEQUENCES)),
        "pg_backend_pid" => return Some(Known::Denied(Effects::ASKS_BACKEND)),
        // The library keeps the connection for whoever comes next on the backend.
        "dblink_connect" | "dblink_connect_u" => return Some(Known::Denied(Effects::LOADS)),
        "setseed" => return Some(Known::Denied(Effects::SEEDS)),
        _ => {}
    }
    advisory(name).or_else(|| {
        if name.starts_with("pg_stat") {
            return Some(Known::Statistics);
        }
        let denied = DENIED.contains(&name) || DENIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        denied.then_some(Known::Denied(Effects::NONE))
    })
}

/// Whether the function of a name is known to change something, or to depend on its server.
pub(super) fn changes(name: &str) -> bool {
    matches!(known(name), Some(Known::Denied(_) | Known::Notify))
}

/// Advisory locks: of the session unless the name says `xact`.
fn advisory(name: &str) -> Option<Known> {
    let rest = name.strip_prefix("pg_try_advisory_").or_else(|| name.strip_prefix("pg_advisory_"))?;
    let effects = match rest {
        _ if rest.starts_with("xact_lock") => Effects::NONE,
        _ if rest.starts_with("unlock") => Effects::ENDS_STATE,
        _ => Effects::LOCKS,
    };
    Some(Known::Neutral(effects.with(Effects::ADVISORY)))
}

const HARMLESS: &[&str] = &[
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "now",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "random_normal",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v3",
    "uuid_generate_v4",
    "uuid_generate_v5",
    "uuidv4",
    "uuidv7",
];

const DENIED: &[&str] = &[
    "current_setting",
    "nextval",
    "setval",
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_conf_load_time",
    "pg_config",
    "pg_cursor",
    "pg_create_restore_point",
    "pg_current_logfile",
    "pg_current_snapshot",
    "pg_export_snapshot",
    "pg_get_shmem_allocations",
    "pg_hba_file_rules",
    "pg_is_in_backup",
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_is_wal_replay_paused",
    "pg_jit_available",
    "pg_lock_status",
    "pg_log_backend_memory_contexts",
    "pg_my_temp_schema",
    "pg_postmaster_start_time",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_promote",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_safe_snapshot_blocking_pids",
    "pg_show_all_settings",
    "pg_switch_wal",
    "pg_terminate_backend",
    "pg_trigger_depth",
    "pg_xact_commit_timestamp",
    "pg_xact_status",
    "pg_xact_commit_timestamp_origin",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "ts_stat",
    "ts_rewrite",
    "loread",
    "lowrite",
];

const DENIED_PREFIXES: &[&str] = &[
    "dblink",
    "inet_client_",
    "inet_server_",
    "lo_",
    "pg_backup_",
    "pg_control_",
    "pg_copy_",
    "pg_create_",
    "pg_current_wal",
    "pg_current_xact",
    "pg_drop_",
    "pg_file_",
    "pg_get_replication",
    "pg_get_wal_",
    "pg_last_",
    "pg_logical_",
    "pg_ls_",
    "pg_read_",
    "pg_replication_",
    "pg_start_",
    "pg_stop_",
    "pg_walfile_",
    "pg_wal_replay_",
    "txid_",
];

/// Whether a string given to this function is the name of an object.
pub(super) fn names_objects(name: &str) -> bool {
    name.starts_with("to_reg")
        || name.starts_with("pg_")
        || matches!(name, "obj_description" | "col_description")
}

/// Whether the first argument is the name of a sequence.
pub(super) fn is_sequence_call(name: &str) -> bool {
    matches!(name, "nextval" | "currval" | "setval")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        let locks = |effects: Effects| Some(Known::Neutral(effects.with(Effects::ADVISORY)));
        assert_eq!(known("random"), Some(Known::Harmless));
        assert_eq!(known("pg_advisory_lock"), locks(Effects::LOCKS));
        assert_eq!(known("pg_try_advisory_lock_shared"), locks(Effects::LOCKS));
        assert_eq!(known("pg_advisory_xact_lock"), locks(Effects::NONE));
        assert_eq!(known("pg_try_advisory_xact_lock"), locks(Effects::NONE));
        assert_eq!(known("pg_advisory_unlock_all"), locks(Effects::ENDS_STATE));
        assert_eq!(known("pg_stat_get_activity"), Some(Known::Statistics));
        assert_eq!(known("txid_current"), Some(Known::Denied(Effects::NONE)));
        assert_eq!(known("lower"), None);
        assert_eq!(known("log"), None);
    }
}
