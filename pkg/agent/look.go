package agent

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/conflicts"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// How long the parts of a status may take that are not the agent's own.
const (
	pluginTime   = 2 * time.Second
	conflictTime = 10 * time.Second
)

// inForce is the policy that a node is judged by.
type inForce struct {
	policy    policy.Policy
	origin    Origin
	configErr error
	hash      string
	config    config.Config // that the policy was made of
	clearOf   string        // the ports of others, where the agent chose the source ports
}

func (s State) inForce() inForce {
	return inForce{policy: s.Policy, origin: s.Origin, configErr: s.ConfigError, hash: s.ConfigHash, config: s.Config, clearOf: s.PortsClearOf}
}

// look describes the node: daemon and command alike, so that both say the same. It reads and changes nothing, and what it cannot
// look at it names. The daemon adds what it knows of itself.
func look(ctx context.Context, o Options, f inForce) status.Status {
	n := newNode(o, discard())
	s := status.Status{
		APIVersion: status.APIVersion, Config: configOf(o, f), Policy: policyOf(o, n, f),
		Conflicts: []conflicts.Conflict{}, Counters: []status.Counter{}, Unknown: []status.Unknown{}, Node: kernelState(f.policy.Settings),
	}
	unknown := func(part string, err error) {
		if err != nil {
			s.Unknown = append(s.Unknown, status.Unknown{Part: part, Error: oneLine(err)})
		}
	}
	view, err := n.Look(ctx, f.policy)
	unknown(status.PartAddresses, view.EgressErr)
	unknown(status.PartKernel, err)
	if s.Egress = f.egress(view.Egress); view.EgressErr != nil {
		s.Egress = nil
	}
	unknown(status.PartCounters, view.CountersErr)
	s.Drift, s.Backend = view.Drift, backendOf(ctx, n, view.Decision)
	for _, family := range f.policy.Settings.Families() {
		for _, c := range view.Counters[family] {
			s.Counters = append(s.Counters, counterOf(family, c))
		}
	}
	s.CountPrefixes()
	placement := placementOf(ctx, o)
	s.Plugin = pluginOf(placement)
	s.Pods = podsOf(o, n, view, placement.Network, f.policy.Settings, unknown)
	searchCtx, cancel := context.WithTimeout(ctx, conflictTime)
	defer cancel()
	found, err := conflicts.Find(searchCtx, conflictQuery(o, f.policy, view.Attachments))
	unknown(status.PartConflicts, err)
	s.Conflicts = append(s.Conflicts, found...)
	return s
}

func configOf(o Options, f inForce) status.Config {
	c := status.Config{Valid: f.configErr == nil, Path: o.Config.Path, Hash: status.Known(f.hash)}
	if f.configErr != nil {
		c.Error = status.Known(f.configErr.Error())
	}
	return c
}

func policyOf(o Options, n *node.Node, f inForce) status.Policy {
	p := status.Policy{Origin: f.origin.token(o.Config.Path), Reason: string(f.origin), Policy: f.policy, Prefixes: f.prefixes(), Decided: f.decided(), ChosenPorts: f.chosenPorts()}
	if saved, ok := n.PolicySaved(f.policy); ok {
		p.Since = &saved
	}
	return p
}

// token is an origin for programs. The last good config is what a file, or a directory of files, said before.
func (o Origin) token(path string) status.Origin {
	switch o {
	case OriginConfig, OriginLastGood, OriginPartial:
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return status.OriginDirectory
		}
		return status.OriginFile
	case OriginPersisted, OriginElsewhere:
		return status.OriginPersisted
	case OriginDefaults, OriginFallback:
	}
	return status.OriginDefaults
}

func backendOf(ctx context.Context, n *node.Node, d node.Decision) status.Backend {
	var b status.Backend
	if d.Kind != "" {
		b.Kind, b.Reason = &d.Kind, status.Known(d.Reason)
	}
	if err := n.Status(ctx); err != nil {
		b.Error = status.Known(oneLine(err))
	}
	return b
}

func counterOf(family policy.Family, c backend.Counter) status.Counter {
	out := status.Counter{Family: family, Part: c.Part, Packets: c.Packets, Bytes: c.Bytes, Rule: c.Rule}
	if c.Verdict != "" {
		out.Verdict = &c.Verdict
	}
	if c.Prefix.IsValid() {
		out.Prefix = &c.Prefix
	}
	return out
}

func placementOf(ctx context.Context, o Options) install.Placement {
	ctx, cancel := context.WithTimeout(ctx, pluginTime)
	defer cancel()
	return install.Look(ctx, o.Cache.ConfDir, o.BinDir)
}

func pluginOf(p install.Placement) status.Plugin {
	listed := p.Position > 0
	out := status.Plugin{Listed: &listed, Conflist: status.Known(p.Conflist), Answers: &p.Answers, Version: status.Known(p.Version)}
	if listed {
		out.Position = &p.Position
	}
	if err := errors.Join(p.ListErr, p.AnswerErr); err != nil {
		out.Error = status.Known(oneLine(err))
	}
	return out
}

// podsOf sorts the attachments that are on record and those that the runtime knows.
func podsOf(o Options, n *node.Node, view node.View, network string, s policy.Settings, unknown func(part string, err error)) status.Pods {
	pods := status.Pods{Attached: listed(view.Attachments), OptedOut: []status.Pod{}, Bypassing: []status.Pod{}}
	_, err := n.Records()
	unknown(status.PartRecords, err)
	out, err := n.OptedOut()
	unknown(status.PartRecords, err)
	direct, err := n.Bypassing()
	unknown(status.PartRecords, err)
	pods.Bypassing = listed(direct)
	known, err := o.Cache.List()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		unknown(status.PartRuntime, errors.New("there is no "+o.Cache.Dir+"/results: no pod was started yet, or the runtime's cache is elsewhere (--cni-cache-dir)"))
	case err != nil:
		unknown(status.PartRuntime, err)
	default:
		var missing []attachment.Attachment
		missing, out = runtimeOnly(known.Entries, network, s.PodAnnotations, out)
		if s.Sources == policy.SourcesAll {
			missing = nil // everything is covered, whoever sends it
		}
		pods.Uncovered = listed(n.Unrecorded(missing))
	}
	pods.OptedOut = listed(out)
	return pods
}

// runtimeOnly takes what the runtime knows: pods that should be behind the policy, by their network's entry or because their
// network is the one that every pod has; and those that opted out before the plugin recorded it.
func runtimeOnly(entries []cnicache.Entry, network string, allowed policy.PodAnnotations, out []attachment.Attachment) (should, optedOut []attachment.Attachment) {
	recorded := map[attachment.ID]bool{}
	for _, a := range out {
		recorded[a.ID()] = true
	}
	for _, entry := range entries {
		switch {
		case entry.NetNS.Gone() || recorded[entry.ID()] || len(entry.Addresses) == 0:
		case entry.OptedOut(allowed):
			out = append(out, entry.Attachment)
		case entry.Masqueraded(allowed), network != "" && entry.Network == network:
			should = append(should, entry.Attachment)
		}
	}
	return should, out
}

func listed(attachments []attachment.Attachment) []status.Pod {
	pods := []status.Pod{}
	for _, a := range attachments {
		pods = append(pods, status.PodOf(a))
	}
	return pods
}

// kernelState reads what the kernel says of forwarding and tracked connections. /proc/sys/net is that of the reader's network
// namespace.
func kernelState(s policy.Settings) status.Node {
	n := status.Node{IPForward: map[policy.Family]bool{}}
	for _, f := range s.Families() {
		path := "ipv4/ip_forward"
		if f == policy.IPv6 {
			path = "ipv6/conf/all/forwarding"
		}
		if value := netSysctl(path); value != nil {
			n.IPForward[f] = *value != 0
		}
	}
	n.Conntrack, n.ConntrackIn = netSysctl("netfilter/nf_conntrack_count"), netSysctl("netfilter/nf_conntrack_max")
	return n
}

func netSysctl(name string) *int {
	data, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return nil
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil
	}
	return &value
}

// oneLine is an error as one line of text: joined errors have one each.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func conflictQuery(o Options, p policy.Policy, attachments []attachment.Attachment) conflicts.Query {
	var sources []netip.Addr
	for _, a := range attachments {
		sources = append(sources, a.Addresses...)
	}
	return conflicts.Query{Host: o.HostRoot, Policy: p, Sources: sources, ConfDir: o.Cache.ConfDir}
}
