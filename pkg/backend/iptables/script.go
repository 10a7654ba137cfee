package iptables

import (
	"fmt"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// script is the input of one iptables-restore --noflush: a transaction on table nat, all or nothing, and optionally a second
// block that reads what the first left. Both in one process: a write costs one and is read back in it.
type script struct {
	lines []string
	reads []string
}

func newScript() *script { return &script{} }

// declare creates a chain, or flushes it where it is.
func (s *script) declare(chain string) { s.linef(":%s - [0:0]", chain) }

// create makes a chain and fails the transaction where there is one.
func (s *script) create(chain string) { s.linef("-N %s", chain) }

// check fails the transaction unless the rule is there. It writes nothing.
func (s *script) check(chain string, r rule) { s.linef("-C %s %s", chain, r) }

// delete removes one copy of the rule and fails the transaction where there is none.
func (s *script) delete(chain string, r rule) { s.linef("-D %s %s", chain, r) }

// insert puts a rule before the one at index, counted from 0 as the chain is at that point of the transaction.
func (s *script) insert(chain string, index int, r rule) { s.linef("-I %s %d %s", chain, index+1, r) }

func (s *script) append(chain string, r rule) { s.linef("-A %s %s", chain, r) }

func (s *script) appendAll(chain string, rules []rule) {
	for _, r := range rules {
		s.append(chain, r)
	}
}

// addPods adds rules to a pods' chain that is right: at its end, or ahead of the rule for what is no pod's.
func (s *script) addPods(settings policy.Settings, rules []rule) {
	if !settings.NodeTraffic {
		s.appendAll(settings.PodsChain(), rules)
		return
	}
	for _, r := range rules {
		s.insert(settings.PodsChain(), 0, r)
	}
}

// drop removes chains and their rules, which may lead to one another.
func (s *script) drop(chains ...string) {
	for _, chain := range chains {
		s.linef("-F %s", chain)
	}
	for _, chain := range chains {
		s.linef("-X %s", chain)
	}
}

// list prints chains after the transaction.
func (s *script) list(chains ...string) {
	for _, chain := range chains {
		s.reads = append(s.reads, "-S "+chain)
	}
}

// expect fails the process, but not the transaction, unless the rule is there after it. Unlike a list it also works for a
// chain with native nftables rules that iptables cannot print.
func (s *script) expect(chain string, r rule) {
	s.reads = append(s.reads, fmt.Sprintf("-C %s %s", chain, r))
}

func (s *script) linef(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *script) empty() bool { return len(s.lines) == 0 }

// String returns the text for standard input.
func (s *script) String() string {
	var b strings.Builder
	if len(s.lines) > 0 {
		block(&b, s.lines)
	}
	if len(s.reads) > 0 {
		block(&b, s.reads)
	}
	return b.String()
}

func block(b *strings.Builder, lines []string) {
	b.WriteString("*" + natTable + "\n")
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	b.WriteString("COMMIT\n")
}
