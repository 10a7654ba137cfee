package agent

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// MetricsPrefix begins the name of every metric of the daemon.
const MetricsPrefix = "ip_masq_agent_"

// Metrics describes the daemon's metrics. No label has more values than are named here, but for those of *_info, which have one at a
// time, and for prefixes, of which there are maxPrefixes at most.
func Metrics() []probes.Family {
	return probes.Families(
		probes.Family{Name: "backend_info", Type: probes.Gauge, Labels: []string{"backend"}, Help: "Always 1; the label has the kind of rules in use: iptables-nft, iptables-legacy or nftables."},
		probes.Family{Name: "config_valid", Type: probes.Gauge, Help: "Whether the config could be used when it was last read. While it is 0 the last good policy stays in force."},
		probes.Family{Name: "config_info", Type: probes.Gauge, Labels: []string{"hash"}, Help: "Always 1; the label has the SHA-256 of the last good config, as sha256sum prints it."},
		probes.Family{Name: "config_last_reload_success_timestamp_seconds", Type: probes.Gauge, Help: "When the config was last read and found good. A file that does not change is not read again."},
		probes.Family{Name: "last_sync_success_timestamp_seconds", Type: probes.Gauge, Help: "When the rules were last found or made equal to the policy."},
		probes.Family{Name: "syncs_total", Type: probes.Counter, Labels: []string{"result"}, Help: "How often rules and policy were compared, by result: ok or failed."},
		probes.Family{Name: "sync_duration_seconds", Type: probes.Histogram, Help: "How long a sync takes, waiting for locks included."},
		probes.Family{Name: "repairs_total", Type: probes.Counter, Labels: []string{"object", "cause"}, Help: "Repairs of what other software changed, by the outermost object concerned (table, chain, root-rule, policy-rule, pod) and by what was wrong with it (missing, unexpected, different)."},
		probes.Family{Name: "drift", Type: probes.Gauge, Help: "Objects in the kernel that differed from the policy and could not be repaired by the last sync."},
		probes.Family{Name: "attachments", Type: probes.Gauge, Help: "Pod interfaces on record, which are behind the policy."},
		probes.Family{Name: "uncovered_pods", Type: probes.Gauge, Help: "Pod interfaces that the container runtime knows and that are not on record. Absent where the runtime's cache cannot be read."},
		probes.Family{Name: "opted_out_pods", Type: probes.Gauge, Help: "Pod interfaces that keep their address because their network or annotation asks for it."},
		probes.Family{Name: "refused_annotations_total", Type: probes.Counter, Help: "Annotations of pods that were refused because podAnnotations does not allow them, each counted once for a pod's attachment. Status names the pods."},
		probes.Family{Name: "egress_source_missing", Type: probes.Gauge, Help: "Egress groups of whose source addresses this node has none, in one family at least. Their connections are masqueraded or dropped, as whenMissing says."},
		probes.Family{Name: "conflicts", Type: probes.Gauge, Help: "Rules of other software that defeat the policy. Absent before the first search."},
		probes.Family{Name: "packets_total", Type: probes.Counter, Labels: []string{"family", "verdict"}, Help: "Packets that the policy decided about, which are the first of their connections, by family (ipv4, ipv6) and verdict (masquerade, keep; translate and drop where the policy chooses source addresses)."},
		probes.Family{Name: "bytes_total", Type: probes.Counter, Labels: []string{"family", "verdict"}, Help: "Bytes of those packets, by family and verdict."},
		probes.Family{Name: "prefix_packets_total", Type: probes.Counter, Labels: []string{"family", "prefix", "verdict"}, Help: "Packets that each prefix of the policy decided about, by family, prefix and its verdict (keep, masquerade; translate for a prefix of an egress group, whatever becomes of it on this node). Absent where the policy has more than 100 prefixes."},
		probes.Family{Name: "prefix_bytes_total", Type: probes.Counter, Labels: []string{"family", "prefix", "verdict"}, Help: "Bytes of those packets, by family, prefix and verdict."},
		probes.Family{Name: "connections_ended_total", Type: probes.Counter, Help: "Connections ended because a new policy changed their verdict."},
		probes.Family{Name: "conntrack_entries", Type: probes.Gauge, Help: "Connections in the kernel's connection table."},
		probes.Family{Name: "conntrack_limit", Type: probes.Gauge, Help: "How many connections the table may have (net.netfilter.nf_conntrack_max)."},
		probes.Family{Name: "conntrack_insert_failed_total", Type: probes.Counter, Help: "Connections that the kernel could not enter into the table since it booted, such as two that claim one source port."},
		probes.Family{Name: "conntrack_drops_total", Type: probes.Counter, Help: "Packets dropped since the kernel booted because connection tracking failed, such as with a full table."},
		probes.Family{Name: "conntrack_early_drops_total", Type: probes.Counter, Help: "Connections that the kernel gave up since it booted to make room for others."},
		probes.Family{Name: "conntrack_clash_resolved_total", Type: probes.Counter, Help: "Connections that two packets made at the same time since the kernel booted, and that became one."},
		probes.Family{Name: "source_port_usage_ratio", Type: probes.Gauge, Help: "The share of its source ports that the destination with the fewest free ones takes, from 0 to 1. Status names it, and the pods."},
		probes.Family{Name: "source_port_busy_destinations", Type: probes.Gauge, Labels: []string{"above"}, Help: "Destinations that take more than a share of their source ports: 0.5, 0.8 or 0.95."},
		probes.Family{Name: "translation_log_lines_total", Type: probes.Counter, Help: "Lines written to the translation log."},
		probes.Family{Name: "translation_log_lost_total", Type: probes.Counter, Help: "Lines of the translation log that the disk did not take, and times that the kernel dropped events of connections, which a list of its table makes up for."},
	)
}

// syncBounds are the upper bounds of sync_duration_seconds: a sync that finds nothing new takes a fraction of a millisecond, and
// none more than syncTime.
var syncBounds = []float64{0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// instruments are what the daemon counts for /metrics beside its State. A scrape takes no lock of the node, starts no process, and
// waits for nothing that the loop does.
type instruments struct {
	*probes.Metrics
	state func() State
	node  *node.Node

	mu        sync.Mutex
	drift     int
	synced    time.Time // the last success
	missing   int       // egress groups, at the last success
	conflicts int       // -1 before the first search
	traffic   traffic
	pods      podCount
}

func newInstruments(health *probes.Health, host registry.Host, n *node.Node, state func() State) *instruments {
	m := &instruments{
		Metrics: probes.NewMetrics(MetricsPrefix, health, Metrics()...),
		state:   state, node: n, conflicts: -1, traffic: traffic{host: host}, pods: podCount{node: n},
	}
	for _, result := range []string{"ok", "failed"} {
		m.Counter("syncs_total", result)
	}
	for _, object := range backend.Objects() {
		for _, problem := range backend.Problems() {
			m.Counter("repairs_total", string(object), string(problem))
		}
	}
	m.Counter("connections_ended_total")
	m.Counter("refused_annotations_total")
	m.Histogram("sync_duration_seconds", syncBounds...)
	m.OnScrape(m.tell)
	m.OnScrape(tellConntrack)
	return m
}

// sync takes in what one sync did.
func (m *instruments) sync(took time.Duration, result node.Result, err error, repaired bool) {
	m.Histogram("sync_duration_seconds", syncBounds...).Update(took.Seconds())
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.Counter("syncs_total", "failed").Inc()
		if len(result.Drift) > 0 { // otherwise nothing new is known
			m.drift = len(result.Drift)
		}
		return
	}
	m.Counter("syncs_total", "ok").Inc()
	m.drift, m.synced, m.missing = 0, time.Now(), 0
	for _, group := range result.Egress {
		if len(group.Missing) > 0 {
			m.missing++
		}
	}
	if !repaired {
		return
	}
	if d, ok := outermost(result.Repaired); ok {
		m.Counter("repairs_total", string(d.Object), string(d.Problem)).Inc()
	}
}

// outermost picks what explains the rest: a table that is missing takes chains, rules and pods with it.
func outermost(drift []backend.Drift) (backend.Drift, bool) {
	for _, object := range backend.Objects() {
		if i := slices.IndexFunc(drift, func(d backend.Drift) bool { return d.Object == object }); i >= 0 {
			return drift[i], true
		}
	}
	return backend.Drift{}, false
}

// sampleTraffic reads the rules' counters beside the loop, so that less is lost when somebody removes a rule.
func (m *instruments) sampleTraffic(ctx context.Context) {
	s := m.state()
	m.traffic.sample(ctx, s.Result.Backend, s.Policy)
}

func (m *instruments) foundConflicts(number int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conflicts = number
}

// tell gives a scrape what State and node know. What is not known yet has no value.
func (m *instruments) tell(scrape *probes.Scrape) {
	s := m.state()
	if s.Result.Backend != "" {
		scrape.Set("backend_info", 1, string(s.Result.Backend))
	}
	if !s.LastSync.IsZero() {
		scrape.Set("config_valid", probes.Number(s.ConfigError == nil))
	}
	if !s.ConfigLoaded.IsZero() {
		scrape.Set("config_info", 1, s.ConfigHash)
		scrape.Set("config_last_reload_success_timestamp_seconds", seconds(s.ConfigLoaded))
	}
	m.tellCounts(scrape)
	m.pods.tell(scrape)
	m.tellTraffic(scrape, s)
}

func (m *instruments) tellCounts(scrape *probes.Scrape) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.synced.IsZero() {
		scrape.Set("last_sync_success_timestamp_seconds", seconds(m.synced))
		scrape.Set("egress_source_missing", float64(m.missing))
	}
	scrape.Set("drift", float64(m.drift))
	if m.conflicts >= 0 {
		scrape.Set("conflicts", float64(m.conflicts))
	}
}

// scrapeTime bounds what a scrape asks of the kernel.
const scrapeTime = 2 * time.Second

// tellTraffic tells of the families that are on, also before their first packet.
func (m *instruments) tellTraffic(scrape *probes.Scrape, s State) {
	if s.LastSync.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	m.traffic.sample(ctx, s.Result.Backend, s.Policy)
	for d, counts := range m.traffic.byPrefix() {
		labels := []string{familyLabel(d.Family), d.Prefix.String(), string(d.Verdict)}
		scrape.Set("prefix_packets_total", float64(counts.Packets), labels...)
		scrape.Set("prefix_bytes_total", float64(counts.Bytes), labels...)
	}
	for _, family := range s.Policy.Settings.Families() {
		for _, verdict := range []policy.Verdict{policy.Keep, policy.Masquerade, policy.Translate, policy.Drop} {
			counts := m.traffic.of(backend.Decision{Family: family, Verdict: verdict})
			if chosen := verdict == policy.Translate || verdict == policy.Drop; chosen && counts.Packets == 0 && len(s.Policy.Egress) == 0 {
				continue
			}
			labels := []string{familyLabel(family), string(verdict)}
			scrape.Set("packets_total", float64(counts.Packets), labels...)
			scrape.Set("bytes_total", float64(counts.Bytes), labels...)
		}
	}
}

func familyLabel(f policy.Family) string { return "ipv" + strconv.Itoa(int(f)) }

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// traffic adds up the rules' counters.
type traffic struct {
	host registry.Host

	mu       sync.Mutex
	begun    bool
	next     time.Time
	totals   backend.Totals
	prefixes *backend.Totals // nil where the policy has too many
}

// maxPrefixes is up to how many prefixes a policy is counted by prefix. Each is two series for every node of a cluster, so that 1,000 nodes
// with a policy of this size make 200,000, which one Prometheus takes; and each scrape and each second of reading lists them all.
const maxPrefixes = 100

// How often the counters are read at most, and for which share of the time: a chain of iptables with 50,000 rules takes long.
const (
	trafficPause  = time.Second
	trafficFactor = 50
)

// sample reads the counters, unless that was done a moment ago. Where they cannot be read the totals stay as they are.
func (t *traffic) sample(ctx context.Context, kind backend.Kind, p policy.Policy) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := registry.Open(t.host, kind)
	began := time.Now()
	if b == nil || began.Before(t.next) {
		return
	}
	prefixes := prefixesOf(p)
	reading, err := b.Traffic(ctx, p.Settings, prefixes != nil, p.Settings.Families()...)
	t.next = time.Now().Add(max(trafficPause, trafficFactor*time.Since(began)))
	if err != nil {
		return
	}
	ofPrefixes := slices.DeleteFunc(slices.Clone(reading), func(r backend.Traffic) bool { return !r.Prefix.IsValid() })
	reading = slices.DeleteFunc(reading, func(r backend.Traffic) bool { return r.Prefix.IsValid() })
	if !t.begun { // what stood here before this daemon is no traffic since then
		t.begun = true
		t.totals.Begin(reading)
	}
	t.totals.Add(reading)
	t.addPrefixes(ofPrefixes, prefixes)
}

// addPrefixes counts those of the policy. A prefix that leaves it takes its count along.
func (t *traffic) addPrefixes(reading []backend.Traffic, prefixes map[backend.Decision]bool) {
	switch {
	case prefixes == nil:
		t.prefixes = nil
		return
	case t.prefixes == nil:
		t.prefixes = &backend.Totals{}
		t.prefixes.Begin(reading)
	}
	t.prefixes.Add(reading)
	t.prefixes.Keep(func(d backend.Decision) bool { return prefixes[d] })
}

// prefixesOf are those that are counted, nil where there are too many.
func prefixesOf(p policy.Policy) map[backend.Decision]bool {
	listed := len(p.NonMasquerade) + len(p.Masquerade)
	for _, group := range p.Egress {
		listed += len(group.Destinations)
	}
	if listed > maxPrefixes {
		return nil
	}
	all := make(map[backend.Decision]bool, listed)
	for _, family := range p.Settings.Families() {
		for _, d := range p.Destinations(family) {
			all[backend.Decision{Family: family, Verdict: d.Verdict, Prefix: d.Prefix}] = true
		}
	}
	return all
}

func (t *traffic) byPrefix() map[backend.Decision]backend.Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.prefixes == nil {
		return nil
	}
	return t.prefixes.All()
}

func (t *traffic) of(d backend.Decision) backend.Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.totals.Of(d)
}

// podCount counts attachments. The files that say so are read again when one of them may have changed, or a namespace may have gone.
type podCount struct {
	node *node.Node

	mu        sync.Mutex
	stamp     string
	counted   time.Time
	attached  int
	optedOut  int
	uncovered int // -1 for unknown
}

// podCountAge is how long the count holds where no file changed.
const podCountAge = 30 * time.Second

func (p *podCount) tell(scrape *probes.Scrape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stamp := p.node.PodsStamp(); stamp != p.stamp || time.Since(p.counted) > podCountAge {
		p.stamp, p.counted = stamp, time.Now()
		p.attached, _ = p.node.Attached() // records that cannot be read are in the log
		optedOut, _ := p.node.OptedOut()
		p.optedOut, p.uncovered = len(optedOut), -1
		if uncovered, err := p.node.Uncovered(); err == nil {
			p.uncovered = len(uncovered)
		}
	}
	scrape.Set("attachments", float64(p.attached))
	scrape.Set("opted_out_pods", float64(p.optedOut))
	if p.uncovered >= 0 {
		scrape.Set("uncovered_pods", float64(p.uncovered))
	}
}
