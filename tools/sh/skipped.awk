# Reads CTest's LastTest.log; prints one row a reason for tests that were skipped. Needs: -v suite=NAME.
# GoogleTest prints "file:line: Skipped", then the reason, then "[  SKIPPED ] Suite.Test (0 ms)".
/^[0-9]+\/[0-9]+ (Test|Testing): / { test = $3 }
/: Skipped$/ { waiting = 1; next }
waiting { reason = $0; waiting = 0 }
/^\[  SKIPPED \] [^ ]+ \(/ { add(reason == "" ? "no reason given" : reason); reason = "" }
/^skipped: / { add(substr($0, 10)) }

function add(why) {
    key = test ": " why
    if (!(key in count)) order[++n] = key
    ++count[key]
}

END {
    for (i = 1; i <= n; ++i) {
        cases = (count[order[i]] > 1) ? " (" count[order[i]] " cases)" : ""
        printf "%-8s %-20s %s%s\n", "skipped", "  in " suite, order[i], cases
    }
}
