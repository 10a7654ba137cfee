package agent

import (
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/nfevents"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// author is who made a change that was repaired, as far as the kernel tells.
type author struct {
	name string // of the program, or of several; empty where nothing is known
	pid  int    // 0 where it were several processes
}

// writerLog keeps who wrote the rules since the last sync that succeeded. It is the loop's.
type writerLog struct {
	watcher *nfevents.Watcher // nil where the kernel reports nothing
	pending []nfnl.Writer
}

// keptPending bounds what is kept while syncs fail.
const keptPending = 16

// begin takes down who wrote until now: what a sync finds from here on is theirs.
func (l *writerLog) begin() {
	l.pending = append(l.pending, l.watcher.Writers()...)
	l.pending = l.pending[max(0, len(l.pending)-keptPending):]
}

// end says who made the change that a sync repaired, and forgets what the sync itself wrote. A sync that wrote nothing and did not
// fail cannot have repaired anything.
func (l *writerLog) end(kind backend.Kind, wrote, failed bool) author {
	var during []nfnl.Writer
	if wrote || failed {
		during = l.watcher.Writers()
	}
	before := l.pending
	if !failed {
		l.pending = nil
	}
	if kind == backend.IPTablesLegacy {
		return author{} // the kernel reports nothing about its rules
	}
	if found := authorOf(before, isAgent); found.name != "" {
		return found
	}
	return authorOf(during, func(w nfnl.Writer) bool { return isAgent(w) || isIPTables(w) })
}

// isAgent recognises agent and plugin, whose rules these are, and the program that both start by a name that hardly anybody else
// uses: who wrote by it is not known. The kernel cuts names to 15 characters.
func isAgent(w nfnl.Writer) bool {
	return slices.Contains([]string{"ip-masq-agent", "ip-masq", "iptables-nft-re", "ip6tables-nft-r"}, w.Name)
}

// isIPTables recognises what this agent starts during a sync, by what is left of the name in 15 characters. Others' iptables at that
// moment is not told from it.
func isIPTables(w nfnl.Writer) bool {
	return slices.ContainsFunc([]string{"iptables", "ip6tables", "xtables"}, func(prefix string) bool { return strings.HasPrefix(w.Name, prefix) })
}

func authorOf(writers []nfnl.Writer, excluded func(nfnl.Writer) bool) author {
	var names []string
	var pids []int
	for _, w := range writers {
		if excluded(w) {
			continue
		}
		if !slices.Contains(names, w.Name) {
			names = append(names, w.Name)
		}
		if !slices.Contains(pids, w.PID) {
			pids = append(pids, w.PID)
		}
	}
	a := author{name: strings.Join(names, ", ")}
	if len(pids) == 1 {
		a.pid = pids[0]
	}
	return a
}

// ownObjects recognises the objects whose change can be a reason to repair: ip-masq's chains, POSTROUTING, where other software
// deletes the root rule, and all of ip-masq's own table.
func ownObjects(s policy.Settings) func(table, chain string) bool {
	return func(table, chain string) bool {
		return table == "ip-masq-agent" || table == "nat" && (chain == "POSTROUTING" || iptables.IsOwnChain(s, chain))
	}
}
