// Package status is what people and programs read of a node: the documents of the commands status and check, as Go types that
// are their schema, the judgement of check, and both as text.
//
// It is pure: it refuses to look at a node, so that the same document says the same whether a daemon made it or the command
// itself. Every state is a token, every sentence is for people, and what is not known is null and never a guess.
package status

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/portbudget"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// APIVersion is that of every document. It changes with every change that a program could misread; keys may be added.
const APIVersion = "ip-masq/v1"

// Status is the document of `ip-masq-agent status`.
type Status struct {
	APIVersion string               `json:"apiVersion"`
	Daemon     Daemon               `json:"daemon"`
	Backend    Backend              `json:"backend"`
	Config     Config               `json:"config"`
	Policy     Policy               `json:"policy"`
	Egress     []Egress             `json:"egress"` // null where the node's addresses could not be read
	Drift      []backend.Drift      `json:"drift"`  // null where the kernel could not be compared
	Plugin     Plugin               `json:"plugin"`
	Pods       Pods                 `json:"pods"`
	Conflicts  []conflicts.Conflict `json:"conflicts"`
	Repairs    *Repairs             `json:"repairs"` // null without a daemon
	Counters   []Counter            `json:"counters"`
	Ports      *portbudget.Report   `json:"ports"` // null: not measured
	Node       Node                 `json:"node"`
	Unknown    []Unknown            `json:"unknown"`
}

// Daemon is the agent that keeps the node's rules.
type Daemon struct {
	Running    bool       `json:"running"`
	Responding bool       `json:"responding"` // false: it holds its lock and does not answer
	PID        *int       `json:"pid"`
	Version    *string    `json:"version"`
	Since      *time.Time `json:"since"`
	Current    *bool      `json:"current"` // the last sync is no older than the interval between two allows
	LastSync   *Sync      `json:"lastSync"`
}

// Sync is one sync and its result.
type Sync struct {
	Time   time.Time `json:"time"`
	Result string    `json:"result"`
	Error  *string   `json:"error"`
}

// The results of a sync.
const (
	ResultOK     = "ok"
	ResultFailed = "failed"
)

// Backend is the kind of kernel rules in use, and why.
type Backend struct {
	Kind   *backend.Kind `json:"kind"`
	Reason *string       `json:"reason"`
	Error  *string       `json:"error"` // why a pod could not be attached now
}

// Config is the configuration file as it is now.
type Config struct {
	Valid bool    `json:"valid"`
	Error *string `json:"error"`
	Path  string  `json:"path"`
	Hash  *string `json:"hash"` // SHA-256 of the content that was last read, null where there is no file
}

// Origin says where the policy in force is from.
type Origin string

// The origins. With a file that is bad now, the policy in force is what it said before.
const (
	OriginFile      Origin = "file"
	OriginDirectory Origin = "directory"
	OriginPersisted Origin = "persisted"
	OriginDefaults  Origin = "defaults"
)

// Policy is the policy in force.
type Policy struct {
	Origin Origin     `json:"origin"`
	Reason string     `json:"reason"`
	Since  *time.Time `json:"since"` // when it was written down for the plugin
	policy.Policy
	Prefixes []Prefix `json:"prefixes"` // all destinations, the default last
	// Decided says of every setting that a flag or a key decides which one did.
	Decided []Decided `json:"decided"`
	// ChosenPorts are the source ports of toPorts: auto; null where the ports are not chosen.
	ChosenPorts *ChosenPorts `json:"chosenPorts"`
}

// Decided is a setting and what decided it.
type Decided struct {
	Key   string    `json:"key"`   // the file's name for it
	Value string    `json:"value"` // in the words of the file
	By    DecidedBy `json:"by"`
	File  *string   `json:"file"` // null where no file decides it
	Line  *int      `json:"line"`
}

// DecidedBy is what decides a setting.
type DecidedBy string

// What may decide: a flag wins over the file, and the file over the default. The persisted policy is all three of former days.
const (
	ByFlag      DecidedBy = "flag"
	ByFile      DecidedBy = "file"
	ByPersisted DecidedBy = "persisted"
	ByDefault   DecidedBy = "default"
)

// ChosenPorts are the source ports that the agent chose.
type ChosenPorts struct {
	Ranges  string `json:"ranges"`
	ClearOf string `json:"clearOf"` // the ports that nothing was chosen of, and whose they are
}

// Prefix is what happens to what is bound for a prefix; that of length zero is every other destination.
type Prefix struct {
	Family  policy.Family  `json:"family"`
	Prefix  netip.Prefix   `json:"prefix"`
	Verdict policy.Verdict `json:"verdict"`
	Group   *int           `json:"group"` // the egress group that translates, null for other verdicts
	File    *string        `json:"file"`  // where it is from; null for a default, and in a persisted policy
	Line    *int           `json:"line"`
	Packets *uint64        `json:"packets"` // the first of their connections; null where the backend does not count the prefix
	Bytes   *uint64        `json:"bytes"`
}

// Egress is an egress group of the policy, and what this node has for it.
type Egress struct {
	Group           int                `json:"group"` // counted from 1
	Destinations    []netip.Prefix     `json:"destinations"`
	SourceAddresses []netip.Prefix     `json:"sourceAddresses"`
	WhenMissing     policy.WhenMissing `json:"whenMissing"`
	Addresses       []netip.Addr       `json:"addresses"` // those of the node, of which a connection gets one
	Missing         []policy.Family    `json:"missing"`   // families with destinations, of which the node has no address: whenMissing holds
	File            *string            `json:"file"`
	Line            *int               `json:"line"`
}

// EgressOf describes the groups of a policy by what a node has for them.
func EgressOf(p policy.Policy, groups []ruleset.Egress) []Egress {
	all := make([]Egress, 0, len(groups))
	for _, g := range groups {
		group := p.Egress[g.Group-1]
		all = append(all, Egress{
			Group: g.Group, Destinations: group.Destinations, SourceAddresses: group.SourceAddresses,
			WhenMissing: cmp.Or(group.WhenMissing, policy.MissingMasquerade), Addresses: g.Addresses, Missing: g.Missing,
		})
	}
	return all
}

// Plugin is the CNI plugin as the container runtime would start it.
type Plugin struct {
	Listed   *bool   `json:"listed"`
	Conflist *string `json:"conflist"`
	Position *int    `json:"position"` // counts from 1
	Answers  *bool   `json:"answers"`
	Version  *string `json:"version"`
	Error    *string `json:"error"`
}

// Pods are the attachments of pods, by what the policy has to do with them.
type Pods struct {
	Attached  []Pod `json:"attached"`
	Uncovered []Pod `json:"uncovered"` // the runtime knows them, and they are not on record; null where the runtime's cache cannot be read
	OptedOut  []Pod `json:"optedOut"`
	Bypassing []Pod `json:"bypassing"` // attached, and their packets do not come by the rules
}

// Pod is one attachment.
type Pod struct {
	Namespace   *string      `json:"namespace"`
	Name        *string      `json:"name"`
	Network     string       `json:"network"`
	ContainerID string       `json:"containerID"`
	IfName      string       `json:"ifName"`
	Addresses   []netip.Addr `json:"addresses"`
	// SourceAddresses are the prefixes that its annotation chose, and RefusedAnnotations those of its annotations that have no effect
	// because the key podAnnotations does not allow them.
	SourceAddresses    []netip.Prefix `json:"sourceAddresses"`
	RefusedAnnotations []string       `json:"refusedAnnotations"`
}

// PodOf is an attachment as the documents have it.
func PodOf(a attachment.Attachment) Pod {
	return Pod{
		Namespace: Known(a.Pod.Namespace), Name: Known(a.Pod.Name),
		Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName, Addresses: append([]netip.Addr{}, a.Addresses...),
		SourceAddresses: append([]netip.Prefix{}, a.SourceAddresses...), RefusedAnnotations: append([]string{}, a.Refused...),
	}
}

// Repairs are the times when something had to be put back that other software had changed.
type Repairs struct {
	Total int      `json:"total"`
	Last  []Repair `json:"last"` // ten at most, the newest last
}

// Repair is what was put back of one kind of object.
type Repair struct {
	Time    time.Time       `json:"time"`
	Object  backend.Object  `json:"object"`
	Problem backend.Problem `json:"problem"`
	Count   int             `json:"count"`
	Detail  string          `json:"detail"` // of the first object
	By      *string         `json:"by"`     // the program that made the change, where the kernel tells
	PID     *int            `json:"pid"`
}

// Counter is how many packets, the first of their connections, a rule decided about.
type Counter struct {
	Family  policy.Family   `json:"family"`
	Verdict *policy.Verdict `json:"verdict"` // null for a rule that is not ip-masq's, or counts both families, of which others count each
	Prefix  *netip.Prefix   `json:"prefix"`  // null for a rule about several prefixes, or about every other destination
	Part    bool            `json:"part"`    // another counter has these packets, too
	Packets uint64          `json:"packets"`
	Bytes   uint64          `json:"bytes"`
	Rule    string          `json:"rule"`
}

// Node is what the kernel says about forwarding and tracked connections.
type Node struct {
	IPForward   map[policy.Family]bool `json:"ipForward"` // of the families that are on; one that could not be read is missing
	Conntrack   *int                   `json:"conntrackEntries"`
	ConntrackIn *int                   `json:"conntrackLimit"`
}

// Unknown is a part that could not be looked at.
type Unknown struct {
	Part  string `json:"part"`
	Error string `json:"error"`
}

// The parts of Unknown.
const (
	PartKernel    = "kernel"
	PartAddresses = "addresses"
	PartCounters  = "counters"
	PartRecords   = "records"
	PartRuntime   = "runtime"
	PartConflicts = "conflicts"
)

// Known is a value that is known: nil for a text that is empty.
func Known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// Prefixes lists a policy's destinations of every family that is on, in their order.
func Prefixes(p policy.Policy) []Prefix {
	all := []Prefix{}
	for _, f := range p.Settings.Families() {
		for _, d := range p.Destinations(f) {
			prefix := Prefix{Family: f, Prefix: d.Prefix, Verdict: d.Verdict}
			if d.Group > 0 {
				prefix.Group = &d.Group
			}
			all = append(all, prefix)
		}
		everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if f == policy.IPv6 {
			everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if len(all) == 0 || all[len(all)-1].Prefix != everything {
			all = append(all, Prefix{Family: f, Prefix: everything, Verdict: policy.Masquerade})
		}
	}
	return all
}
