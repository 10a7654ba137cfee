package conflicts

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// arguments is a rule while it is read as `iptables -S` prints it, after the chain's name.
type arguments struct {
	rule
	hook   hook
	module string // to which an option belongs, as several have a --mark
	types  string // of the last address type
}

func fromArguments(args []string, at hook) rule {
	a := arguments{rule: rule{text: join(args)}, hook: at}
	not := false
	for len(args) > 0 {
		switch args[0] {
		case "!":
			not = true
			args = args[1:]
			continue
		case "-j", "-g":
			a.act(args[0] == "-g", args[1:])
			return a.rule
		}
		conditions, used := a.option(args)
		for i := range conditions {
			conditions[i].not = conditions[i].not != not
		}
		a.match, args, not = append(a.match, conditions...), args[used:], false
	}
	return a.rule
}

// Matches whose options are all known below. Others may exclude anything, even without an option.
var knownModules = []string{
	"comment", "mark", "connmark", "addrtype", "set", "iprange", "conntrack", "state", "policy",
	"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "ipv6-icmp", "multiport", "statistic", "limit",
}

// The protocols that pods use.
var transports = map[string]uint16{
	"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "udplite": unix.IPPROTO_UDPLITE, "sctp": unix.IPPROTO_SCTP, "dccp": unix.IPPROTO_DCCP,
	"icmp": unix.IPPROTO_ICMP, "ipv6-icmp": unix.IPPROTO_ICMPV6, "icmpv6": unix.IPPROTO_ICMPV6,
}

// Options that tell apart the packets of one pod to one destination, with the number of their values.
var someOptions = map[string]int{
	"--sport": 1, "--sports": 1, "--ports": 1, "--icmp-type": 1, "--icmpv6-type": 1, "--tcp-flags": 2, "--tcp-option": 1,
	"--mode": 1, "--probability": 1, "--every": 1, "--packet": 1, "--limit": 1, "--limit-burst": 1,
}

// option reads the first option and says how many words it took. An option that is not known takes one; its values follow
// without a dash, and mean nothing by themselves.
func (a *arguments) option(args []string) (conditions match, used int) {
	name, value := args[0], ""
	if len(args) > 1 {
		value = args[1]
	}
	if values, ok := someOptions[name]; ok {
		return match{{about: some}}, min(1+values, len(args))
	}
	known := true
	switch name {
	case "-m":
		a.module, known = value, slices.Contains(knownModules, value)
	case "-p":
		conditions, known = protocolIs(value)
	case "--dport", "--dports":
		conditions, known = portIn(value)
	case "--comment":
		a.comment = value
	case "-s", "--src-range":
		conditions, known = addressIn(source, value)
	case "-d", "--dst-range":
		conditions, known = addressIn(destination, value)
	case "-i":
		conditions = match{{about: input, interfaces: []string{wildcard(value)}}}
	case "-o":
		conditions = match{{about: output, interfaces: []string{wildcard(value)}}}
	case "--mark":
		conditions, known = a.markIs(value)
	case "--src-type", "--dst-type":
		a.types = value
		conditions = match{constant(slices.Contains(strings.Split(value, ","), "UNICAST"))}
	case "--limit-iface-in", "--limit-iface-out":
		return a.atInterface(), 1
	case "--ctstate", "--state":
		conditions, known = a.firstIs("NEW", value)
	case "--ctstatus":
		conditions, known = a.firstIs("", value) // NONE matches nothing at all
	case "--ctdir":
		conditions, known = a.firstIs("ORIGINAL", value)
	case "--pol":
		conditions = match{constant(value == "none")}
	case "--dir":
		known = a.module == "policy"
	case "--match-set":
		if len(args) > 2 {
			return memberOf(value, args[2]), 3
		}
		known = false
	case "--return-nomatch": // the kernel's answer to a single question has it already
		return nil, 1
	default:
		if strings.HasPrefix(name, "-") {
			return match{{}}, 1
		}
		return nil, 1 // a value
	}
	if !known {
		conditions = match{{}}
	}
	return conditions, min(2, len(args))
}

func protocolIs(name string) (match, bool) {
	number, known := transports[name]
	return match{{about: protocol, from: number, upTo: number}}, known
}

// portIn reads a port, a range of them, or a list of both.
func portIn(value string) (match, bool) {
	c := condition{about: oneOf}
	for part := range strings.SplitSeq(value, ",") {
		first, last, ranged := strings.Cut(part, ":")
		if !ranged {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		upTo, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			return match{{about: some}}, true // a name
		}
		c.any = append(c.any, match{{about: port, from: uint16(from), upTo: uint16(upTo)}})
	}
	if len(c.any) == 1 {
		return c.any[0], true
	}
	return match{c}, true
}

// singleAddress reads what SNAT translates to: an address, or several, with or without ports.
func singleAddress(value string) netip.Addr {
	if addr, err := netip.ParseAddr(value); err == nil {
		return addr
	}
	if at := strings.LastIndexByte(value, ':'); at >= 0 { // ports, and then IPv6 has brackets
		addr, _ := netip.ParseAddr(strings.Trim(value[:at], "[]"))
		return addr
	}
	return netip.Addr{}
}

// addressIn reads a prefix, a range of addresses, or some bits of an address under a mask with holes.
func addressIn(about subject, value string) (match, bool) {
	if address, mask, masked := strings.Cut(value, "/"); masked && about == source {
		bits, err1 := netip.ParseAddr(address)
		under, err2 := netip.ParseAddr(mask)
		if err1 == nil && err2 == nil && bits.BitLen() == under.BitLen() {
			return match{{about: source, bits: bits.AsSlice(), under: under.AsSlice()}}, true
		}
	}
	if prefix, err := netip.ParsePrefix(value); err == nil {
		return match{{about: about, addresses: ranges{rangeOf(prefix)}}}, true
	}
	first, last, _ := strings.Cut(value, "-")
	from, err := netip.ParseAddr(first)
	if err != nil {
		return nil, false
	}
	to, err := netip.ParseAddr(last)
	return match{{about: about, addresses: ranges{{from, to}}}}, err == nil && !to.Less(from)
}

// wildcard writes iptables' "all that begin with" as nft does.
func wildcard(name string) string {
	if start, ok := strings.CutSuffix(name, "+"); ok {
		return start + "*"
	}
	return name
}

// markIs is about the packet's mark, or that of its connection, which a new one has not.
func (a *arguments) markIs(value string) (match, bool) {
	text, maskText, masked := strings.Cut(value, "/")
	mark, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return nil, false
	}
	mask := uint64(1<<32 - 1)
	if masked {
		if mask, err = strconv.ParseUint(maskText, 0, 32); err != nil {
			return nil, false
		}
	}
	if a.module == "connmark" {
		return match{constant(mark == 0)}, true
	}
	return match{{about: marked, mark: uint32(mark), mask: uint32(mask)}}, true
}

// atInterface is an address type judged by one interface. Of a local one that is never a pod's either, of others it is unknown.
func (a *arguments) atInterface() match {
	if strings.Contains(a.types, "UNICAST") {
		return match{{}}
	}
	return nil
}

// firstIs is what connection tracking says of the first packet of a connection whose destination was not translated. Ahead of
// connection tracking it says nothing.
func (a *arguments) firstIs(state, value string) (match, bool) {
	return match{constant(slices.Contains(strings.Split(value, ","), state))}, a.hook != beforeTracking
}

// memberOf knows sets of addresses; those of addresses with ports, or of two addresses, are not understood.
func memberOf(set, directions string) match {
	switch directions {
	case "src":
		return match{{about: sourceSet, set: set}}
	case "dst":
		return match{{about: destinationSet, set: set}}
	}
	return match{{}}
}

// translating are the targets that give a packet another source.
var translating = []string{"MASQUERADE", "SNAT", "NETMAP"}

// redirecting are the targets that give a packet another destination.
var redirecting = []string{"DNAT", "REDIRECT"}

// plainTargets are extensions that may stand without an option and so look like chains.
var plainTargets = []string{"LOG", "NFLOG", "TRACE", "AUDIT"}

func (a *arguments) act(goes bool, target []string) {
	switch {
	case len(target) == 0:
	case slices.Contains(translating, target[0]):
		a.action, a.masquerades = translate, target[0] == "MASQUERADE"
		if len(target) > 2 && target[0] == "SNAT" && target[1] == "--to-source" {
			a.to = singleAddress(target[2])
		}
	case slices.Contains(redirecting, target[0]):
		a.action = redirect
		if len(target) > 2 && target[1] == "--to-destination" {
			a.to = singleAddress(target[2])
		}
	case target[0] == "ACCEPT":
		a.action = accept
	case target[0] == "DROP":
		a.action = drop
	case target[0] == "NFQUEUE", target[0] == "QUEUE":
		a.action, a.queues = drop, true
	case target[0] == "RETURN":
		a.action = returns
	case target[0] == "NOTRACK", target[0] == "CT" && slices.Contains(target, "--notrack"):
		a.untracks = true
	case target[0] == "MARK":
		a.marks, a.markUnknown = true, true
		if len(target) > 2 && target[1] == "--set-xmark" {
			a.setMark(target[2])
		}
	case target[0] == "CONNMARK" && slices.Contains(target, "--restore-mark"):
		a.marks, a.markUnknown = true, true
	case goes:
		a.action, a.chain = goTo, target[0]
	case len(target) == 1 && !slices.Contains(plainTargets, target[0]):
		a.action, a.chain = jumpTo, target[0]
	}
}

func (a *arguments) setMark(value string) {
	text, maskText, _ := strings.Cut(value, "/")
	mark, err1 := strconv.ParseUint(text, 0, 32)
	mask, err2 := strconv.ParseUint(maskText, 0, 32)
	a.mark, a.markMask, a.markUnknown = uint32(mark), uint32(mask), err1 != nil || err2 != nil
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
