package config

import (
	"fmt"
	"slices"
	"strings"
)

// The keys of the file.
const (
	keyNonMasquerade     = "nonMasqueradeCIDRs"
	keyMasquerade        = "masqueradeCIDRs"
	keyMasqLinkLocal     = "masqLinkLocal"
	keyMasqLinkLocalIPv6 = "masqLinkLocalIPv6"
	keyResyncInterval    = "resyncInterval"
	keyCIDRLimit         = "cidrLimit"
	keyOutputInterfaces  = "outputInterfaces"
	keyEgress            = "egress"
	keySources           = "sources"
	keyNodeTraffic       = "nodeTraffic"
	keyToPorts           = "toPorts"
	keyRandomFully       = "randomFully"
	keyPodAnnotations    = "podAnnotations"
)

// The keys of an item of egress.
const (
	keyDestinations    = "destinations"
	keySourceAddresses = "sourceAddresses"
	keyWhenMissing     = "whenMissing"
)

var egressKeys = []string{keyDestinations, keySourceAddresses, keyWhenMissing}

// Type says what a key takes.
type Type string

// The types of values.
const (
	CIDRs       Type = "list of CIDRs"
	Bool        Type = "true or false"
	Duration    Type = "duration"
	Count       Type = "whole number"
	Interfaces  Type = "list of interfaces"
	Egresses    Type = "list of mappings"
	Sources     Type = "pods or all"
	Ports       Type = "port ranges, or auto"
	Annotations Type = "allow, deny, or a list of annotations"
)

// Key describes a key of the file, for the JSON schema and the reference.
type Key struct {
	Name    string
	Type    Type
	Default string // what holds where the key is not given, as text
	Summary string // one sentence
}

// Keys lists the keys of the file.
func Keys() []Key {
	return []Key{
		{
			keyNonMasquerade, CIDRs, "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16; with IPv6 on also fc00::/7",
			"Destinations that see the pod's own address. A list without a prefix of a family leaves that family's default in force; [] masquerades everything.",
		},
		{
			keyMasquerade, CIDRs, "none",
			"Exceptions inside those: destinations that are masqueraded all the same. The most specific prefix wins.",
		},
		{keyMasqLinkLocal, Bool, "false", "Masquerade what goes to 169.254.0.0/16 too."},
		{keyMasqLinkLocalIPv6, Bool, "false", "Masquerade what goes to fe80::/10 too."},
		{keyResyncInterval, Duration, "60s", "How often kernel and policy are compared when nothing else asks for it, at least 100ms."},
		{keyCIDRLimit, Count, "no limit", "Refuse a longer nonMasqueradeCIDRs."},
		{
			keyOutputInterfaces, Interfaces, "all interfaces",
			`Only what leaves through them is masqueraded: names, beginnings such as "bond*", and "!wg0" for one that is left out. One that does not exist is no error.`,
		},
		{
			keyEgress, Egresses, "none",
			"Destinations that see source addresses chosen for them: destinations, sourceAddresses (those of the node's own addresses that lie in these prefixes), whenMissing (masquerade or drop).",
		},
		{keySources, Sources, "pods", "Whose traffic the policy is about: that of pods, or all of the node's as with the Kubernetes agent. The flag --sources wins."},
		{keyNodeTraffic, Bool, "false", "With sources: pods, masquerade also what is no pod's: the node's own traffic and, say, that of virtual machines."},
		{keyToPorts, Ports, "the kernel's choice", "Source ports of masqueraded connections, such as 1024-29999,61000-65535; auto keeps clear of the node's other ports. The flag --to-ports wins."},
		{keyRandomFully, Bool, "true", "Pick source ports at random, where the host supports it. The flag --random-fully wins."},
		{
			keyPodAnnotations, Annotations, "allow",
			"The annotations of pods that count: allow is ip-masq-agent/masquerade alone, deny is none, and ip-masq-agent/source-addresses has to be in a list.",
		},
	}
}

var knownKeys = func() []string {
	var names []string
	for _, key := range Keys() {
		names = append(names, key.Name)
	}
	return names
}()

// checkKeys reports the keys of a mapping that are unknown or given twice and returns the others. Of two the last one counts, as
// in the decoder of the values. The mapping inside the file that they are in is named by where, the file itself is not.
func (d decoder) checkKeys(where string, keys outline, known []string) map[string]entry {
	found := make(map[string]entry, len(keys))
	for _, e := range keys {
		name := e.key
		if where != "" {
			e.key = where + "." + name
		}
		if !slices.Contains(known, name) {
			d.strictness(e, fmt.Sprintf("unknown key %q", e.key), "is ignored", adviceFor(name, known))
			continue
		}
		if earlier, twice := found[name]; twice {
			problem := fmt.Sprintf("key %q is given twice, first in line %d", e.key, earlier.at.line)
			d.strictness(e, problem, "and the last one counts", "keep one of them")
		}
		found[name] = e
	}
	return found
}

// strictness reports what is an error or, in lenient mode, a warning that names the consequence.
func (d decoder) strictness(e entry, problem, consequence, advice string) {
	if d.opts.Lenient {
		d.report.add(d.place(e.key, e.at), Warning, problem+" "+consequence+": "+advice)
		return
	}
	d.report.add(d.place(e.key, e.at), Error, problem+": "+advice)
}

// adviceFor names the known key nearest to an unknown one, whatever the letter case, or all of them where none is near.
func adviceFor(key string, known []string) string {
	nearest, best := "", len(key)/3+1
	for _, name := range known {
		if d := distance(strings.ToLower(key), strings.ToLower(name)); d < best {
			nearest, best = name, d
		}
	}
	if nearest == "" {
		return "the known keys are " + strings.Join(known, ", ")
	}
	return "did you mean " + nearest + "?"
}

// distance counts the letters to insert, delete or replace to get from a to b. A key much longer than any known one is
// not worth the table.
func distance(a, b string) int {
	if len(a) > 2*len(b) {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
