//! Whether an error is the fault of the rows that were given, which are set aside then, or not, and they wait.
//!
//! A row is set aside only where the error proves that its values are refused: by what kind of error it is, or by the place
//! in PostgreSQL's source from which it comes, the field `R` of an error. What proves nothing waits and is tried again: that
//! keeps the rows of one table on the primary, and tells of it, where a row that was set aside by mistake would be work
//! undone that nobody looks for.

use crate::wire::read::ErrorFields;

/// Classes of errors that values cause: cardinality, data, constraints, a view's check, and what PL/pgSQL's own statements
/// find (`RAISE` without a code, `STRICT`, `ASSERT`).
const OF_VALUES: [&str; 5] = ["21", "22", "23", "44", "P0"];

/// Codes of these classes that no value causes: a sequence that has no more numbers, and a COPY that is not in its format,
/// which is ours.
const NOT_OF_VALUES: [&str; 2] = ["2200H", "22P04"];

/// SQLSTATE `program_limit_exceeded`. It says also that the server has no transaction numbers left.
const TOO_LARGE: &str = "54000";

/// The routines that raise it for a value which is too long for a row, an index, a `jsonb` or a `tsvector`.
const MEASURES: [&str; 11] = [
    "RelationGetBufferForTuple",
    "index_form_tuple",
    "index_form_tuple_context",
    "_bt_check_third_page",
    "_hash_doinsert",
    "GinFormTuple",
    "spgdoinsert",
    "brin_doinsert",
    "checkStringLen",
    "make_tsvector",
    "tsvectorin",
];

/// The routines of PL/pgSQL's `RAISE` and `ASSERT`: a trigger or a library's function has spoken, not the server.
const RAISES: [&str; 2] = ["exec_stmt_raise", "exec_stmt_assert"];

/// Classes that are PostgreSQL's own and speak of the server, the tables or the statement. A function that raises one of
/// these says that of them, or hands on what it was told.
const OF_SERVER: [&str; 39] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "24", "25", "26",
    "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57",
    "58", "72", "F0", "HV", "XX",
];

/// Whether the error proves that the rows' values are refused.
pub(super) fn is_of_rows(error: &ErrorFields) -> bool {
    let Some(class) = error.code.get(..2).filter(|_| error.code.len() == 5) else { return false };
    let routine = &*error.routine;
    if OF_VALUES.contains(&class) {
        return !NOT_OF_VALUES.contains(&error.code.as_str());
    }
    if error.code == TOO_LARGE {
        return MEASURES.contains(&routine);
    }
    // A code of the library's own: graphile-worker's begin with GW.
    RAISES.contains(&routine) && !OF_SERVER.contains(&class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(code: &str, routine: &str) -> bool {
        let (code, routine) = (code.to_owned(), routine.into());
        is_of_rows(&ErrorFields { code, routine, ..ErrorFields::default() })
    }

    #[test]
    fn what_values_cause_is_the_row_s_fault() {
        for code in ["21000", "22P02", "22023", "23514", "23502", "23503", "23P01", "44000", "P0001", "P0004"]
        {
            assert!(is_of(code, ""), "{code}");
        }
        for code in [
            "42703", "53100", "57014", "25006", "40001", "55P03", "42501", "58030", "XX000", "2200H",
            "22P04", "", "2",
        ] {
            assert!(!is_of(code, ""), "{code}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_is_the_row_s_fault_if_it_was_raised() {
        for code in ["GWBMA", "OB001", "99999"] {
            assert!(is_of(code, "exec_stmt_raise") && is_of(code, "exec_stmt_assert"), "{code}");
            assert!(!is_of(code, "") && !is_of(code, "some_extension"), "{code}");
        }
        // It says itself that it is not.
        for code in ["40001", "55P03", "53300", "XX000", "42501"] {
            assert!(!is_of(code, "exec_stmt_raise"), "{code}");
        }
    }

    #[test]
    fn a_limit_is_the_row_s_fault_where_a_value_is_measured() {
        assert!(is_of("54000", "_bt_check_third_page") && is_of("54000", "RelationGetBufferForTuple"));
        assert!(
            !is_of("54000", "GetNewTransactionId")
                && !is_of("54000", "")
                && !is_of("54001", "check_stack_depth")
        );
    }
}
