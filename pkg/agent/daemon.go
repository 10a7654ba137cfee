package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/filelock"
	"github.com/ip-masq/ip-masq-cni/pkg/nfevents"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/nodeaddr"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
	"github.com/ip-masq/ip-masq-cni/pkg/translog"
	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

// State is what the daemon knows about itself, as others may read it at any time.
type State struct {
	Since        time.Time // of the daemon
	LastSync     time.Time // when the last sync ended, zero before the first
	SyncError    error     // of the last sync
	Result       node.Result
	Addresses    []netip.Addr  // of the node that the policy may give to connections, at the last good sync
	Policy       policy.Policy // in force
	Config       config.Config // that it was made of
	PortsClearOf string        // the ports of others, where the agent chose the source ports
	Origin       Origin        // of that policy
	ConfigError  error
	ConfigHash   string             // of the last good config, empty before the first
	ConfigLoaded time.Time          // when that was read
	Repairs      int                // since the start
	RepairsBy    map[RepairKind]int // objects that were put back
	LastRepairs  []status.Repair    // the newest last, keptRepairs at most
}

// RepairKind is what objects that were put back have in common.
type RepairKind struct {
	Object  backend.Object
	Problem backend.Problem
}

// daemon is the agent that runs: it keeps the kernel equal to the config file. Its loop is one goroutine; what others may ask
// is in state.
type daemon struct {
	options Options
	node    *node.Node
	source  *source
	health  *probes.Health
	log     *slog.Logger
	report  report
	writers writerLog

	addresses addressWatch

	metrics *instruments

	endFlows  *background[flowChange]
	conflicts *background[conflictSearch]
	traffic   *background[struct{}]
	memory    *background[struct{}]

	ports        *portWatch
	translations atomic.Pointer[translog.Logger] // nil: no log
	beyondPods   atomic.Bool                     // the policy in force is about more than pods
	syncRequests chan syncRequest
	synced       sync.Once // what can wait until the first sync begins after it
	watch        func()    // begins to tell the loop of rules and pods that changed: what a first sync writes is no news to it
	status       shared[status.Status]

	mu    sync.Mutex
	state State
}

// State returns a copy that the daemon does not change any more.
func (d *daemon) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	s.LastRepairs, s.RepairsBy = slices.Clone(s.LastRepairs), maps.Clone(s.RepairsBy)
	return s
}

// run is the daemon. It ends with 0 on SIGTERM or SIGINT and leaves the rules.
func (p Program) run(o Options, _ []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	lock, err := hold(o.StateDir)
	var held *filelock.HeldError
	if errors.As(err, &held) {
		return anotherAgent(err, "end it first, or give this one its own --state-dir")
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	log := o.Logging.Logger(p.Stderr)
	d := newDaemon(ctx, o, log)
	if err := d.serve(ctx, o.MetricsAddress); err != nil {
		return err
	}
	_, _ = d.load() // so that there is something to answer with
	logged := d.logTranslations(ctx, p.Stdout)
	ended := make(chan struct{})
	go func() { defer close(ended); d.listen(ctx) }()
	log.Info("starting", "version", version.String(), "config", o.Config.Path, "backend", o.Backend)
	d.loop(ctx, o.Config.Path)
	<-ended
	logged()
	log.Info("stopping; the rules stay in place")
	return nil
}

func newDaemon(ctx context.Context, o Options, log *slog.Logger) *daemon {
	n := newNode(o, log)
	d := &daemon{
		options: o, syncRequests: make(chan syncRequest),
		node: n, source: newSource(o, n, log), log: log, report: report{log: log}, addresses: addressWatch{log: log, watch: nodeaddr.Watch},
		health: probes.NewHealth("the rules were not read back from the kernel yet", 2*syncTime),
		state:  State{Since: time.Now(), RepairsBy: map[RepairKind]int{}},
	}
	d.status.compute = d.describe
	d.ports = &portWatch{rules: func() node.Rules { s := d.State(); return node.Rules{Policy: s.Policy, Addresses: s.Addresses} }, log: log}
	d.metrics = newInstruments(d.health, o.HostRoot, n, d.State)
	d.metrics.OnScrape(d.ports.tell)
	d.metrics.OnScrape(d.tellTranslations)
	reporter := &conflictReporter{options: o, log: log, found: d.metrics.foundConflicts}
	d.conflicts = startBackground(ctx, reporter.search, newest)
	ended := d.metrics.Counter("connections_ended_total")
	d.endFlows = startBackground(ctx, func(ctx context.Context, c flowChange) { ended.Add(endFlows(ctx, n, c, log)) }, flowChange.join)
	d.memory = startBackground(ctx, new(memory).giveBack, newest)
	d.traffic = startBackground(ctx, func(ctx context.Context, _ struct{}) { d.metrics.sampleTraffic(ctx) }, newest)
	return d
}

// serve answers probes and metrics, unless the address is empty. It takes the address, which delays nothing, and answers beside the
// first sync.
func (d *daemon) serve(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	listener, err := probes.Listen(ctx, address)
	if err != nil {
		return fmt.Errorf("--metrics-bind-address: %w", err)
	}
	go probes.Serve(ctx, listener, probes.Handler(d.health, d.metrics.Metrics))
	return nil
}

// loop syncs until ctx ends.
func (d *daemon) loop(ctx context.Context, configPath string) {
	configChanges, ruleChanges, podChanges, hangups := make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1), make(chan os.Signal, 1)
	go watch(ctx, configPath, configChanges)
	d.watch = func() {
		var err error
		if d.writers.watcher, err = nfevents.Watch(ctx, ruleChanges, ownObjects(d.options.Settings)); err != nil {
			d.log.Warn("the kernel does not report changes of rules; they are repaired at every resync", "reason", err)
		}
		if err := d.watchPods(ctx, podChanges); err != nil {
			d.log.Warn("pods that the plugin did not see are adopted at every resync only", "reason", err)
		}
		notify(ruleChanges) // what changed since the first sync read it
		notify(podChanges)
	}
	d.addresses.changed = make(chan struct{}, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	l := &loop{
		sync: d.sync, log: d.log, configChanges: configChanges, ruleChanges: ruleChanges, podChanges: podChanges,
		addressChanges: d.addresses.changed, hangups: hangups, requests: d.syncRequests,
	}
	l.run(ctx)
}

// sync makes the kernel equal to the config once. It is the only place where the daemon does.
func (d *daemon) sync(ctx context.Context, reason string) outcome {
	began := time.Now()
	inForce, configErr := d.load()
	syncCtx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	records, _ := d.node.Records()
	d.addresses.follow(ctx, ruleset.SourceAddresses(inForce, records))
	d.writers.begin()
	result, err := d.node.Sync(syncCtx, inForce)
	by := d.writers.end(result.Backend, result.Changed, err != nil)
	o := outcome{
		failed: err != nil, interval: d.source.interval, reading: result.Reading,
		ignoreKernel: result.Backend == backend.IPTablesLegacy,
	}
	if ctx.Err() != nil {
		return o // the daemon ends; the error says no more than that
	}
	level := cli.V(4)
	if result.Changed {
		level = cli.V(2)
	}
	took := time.Since(began)
	d.log.Log(ctx, level, "synced", "reason", reason, "took", took, "reading", result.Reading, "changed", result.Changed)
	repaired := d.report.sync(result, err, inForce, d.source.origin, by)
	d.remember(result, err, repaired, by)
	d.metrics.sync(took, result, err, repaired)
	d.tellRefusals()
	d.health.Set(errors.Join(configErr, err))
	d.health.Turned(2*o.interval + 2*syncTime)
	d.synced.Do(func() {
		d.watch()
		go d.ports.run(ctx)
	})
	d.memory.submit(struct{}{})
	if err == nil {
		d.afterwards(inForce, result)
	}
	return o
}

// afterwards hands over what is done beside the loop.
func (d *daemon) afterwards(inForce policy.Policy, result node.Result) {
	if change, is := flowChangeOf(result, inForce); is {
		d.endFlows.submit(change)
	}
	records, _ := d.node.Records()
	d.conflicts.submit(conflictSearch{inForce, records})
	d.traffic.submit(struct{}{})
}

// load reads the config where it changed, and tells everybody what is in force.
func (d *daemon) load() (policy.Policy, error) {
	inForce, err := d.source.load()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Policy, d.state.Origin, d.state.ConfigError = inForce, d.source.origin, err
	d.beyondPods.Store(inForce.Settings.Sources == policy.SourcesAll || inForce.Settings.NodeTraffic)
	d.state.Config, d.state.PortsClearOf = d.source.config, d.source.clearOf()
	d.state.ConfigHash, d.state.ConfigLoaded = d.source.hash, d.source.loaded
	return inForce, err
}

func (d *daemon) remember(result node.Result, err error, repaired bool, by author) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.state
	s.LastSync, s.SyncError, s.Result = time.Now(), err, result
	if err == nil {
		s.Addresses = result.Addresses
	}
	if !repaired {
		return
	}
	s.Repairs++
	s.LastRepairs = append(s.LastRepairs, repairsOf(s.LastSync, result.Repaired, by)...)
	s.LastRepairs = s.LastRepairs[max(0, len(s.LastRepairs)-keptRepairs):]
	for _, r := range result.Repaired {
		s.RepairsBy[RepairKind{r.Object, r.Problem}]++
	}
}
