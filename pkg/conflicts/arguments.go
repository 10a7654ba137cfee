package conflicts

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// fromArguments reads a rule as `iptables -S` prints it, after the chain's name. Options that it does not know make the match
// one that is not understood.
func fromArguments(args []string) rule {
	r := rule{text: join(args)}
	for i, not := 0, false; i < len(args); i++ {
		if args[i] == "!" {
			not = true
			continue
		}
		if args[i] == "-j" || args[i] == "-g" {
			r.act(args[i+1:])
			return r
		}
		if i+1 < len(args) && r.option(args[i], args[i+1], not) {
			i++
		} else if strings.HasPrefix(args[i], "-") {
			r.match.other = true
		}
		not = false
	}
	return r
}

// option reads one option and reports whether it and its value are understood, or at least harmless.
func (r *rule) option(name, value string, not bool) bool {
	switch name {
	case "-s", "-d":
		return r.match.address(name == "-s", value, not)
	case "-m":
	case "--comment":
		r.comment = value
	case "--mark":
		return r.match.mark(value, not)
	case "--src-type", "--dst-type":
		return r.match.addressType(value, not)
	case "-o":
		r.match.outInterface(value, not)
	case "--match-set":
		r.match.set(value)
	default:
		return false
	}
	return true
}

func (m *match) address(source bool, value string, not bool) bool {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return false
	}
	if source {
		m.sources = append(m.sources, address{prefix.Masked(), not})
	} else {
		m.destinations = append(m.destinations, address{prefix.Masked(), not})
	}
	return true
}

func (m *match) mark(value string, not bool) bool {
	text, _, _ := strings.Cut(value, "/")
	wanted, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return false
	}
	m.marked(uint32(wanted), not)
	return true
}

func (m *match) addressType(value string, not bool) bool {
	if value != "LOCAL" {
		return false
	}
	m.local(not)
	return true
}

// outInterface knows the loopback interface only: which way a pod's packet takes to a destination is not ours to compute.
func (m *match) outInterface(name string, not bool) {
	if name == "lo" {
		m.loopback(not)
		return
	}
	m.other = true
}

// hairpinSet holds connections of pods to themselves through a service, which kube-proxy in mode ipvs has to masquerade.
const hairpinSet = "KUBE-LOOP-BACK"

func (m *match) set(name string) {
	m.other = true
	m.never = m.never || strings.HasSuffix(name, hairpinSet)
}

// sourceTargets are the targets that give a packet another source.
var sourceTargets = []string{"MASQUERADE", "SNAT", "NETMAP"}

// plainTargets are extensions that may stand without an option and so look like chains.
var plainTargets = []string{"LOG", "NFLOG", "TRACE", "DROP", "QUEUE", "NFQUEUE", "AUDIT"}

func (r *rule) act(target []string) {
	switch {
	case len(target) == 0:
	case slices.Contains(sourceTargets, target[0]):
		r.action = masquerades
	case target[0] == "ACCEPT":
		r.action = accepts
	case target[0] == "RETURN":
		r.action = returns
	case len(target) == 1 && !slices.Contains(plainTargets, target[0]):
		r.action, r.chain = jumps, target[0]
	}
}

// join writes arguments so that they can be pasted into a shell.
func join(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\"'\\$`") {
			words[i] = strconv.Quote(arg)
		}
	}
	return strings.Join(words, " ")
}
