package agent

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"sync"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/portbudget"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// portWatch samples how many source ports are taken, beside the loop.
type portWatch struct {
	rules func() node.Rules // that are in force
	log   *slog.Logger

	mu         sync.Mutex
	last       node.Rules // that pools are of
	pools      portbudget.Pools
	sampler    *portbudget.Sampler
	report     *portbudget.Report // nil before the first sample
	lastLogged string
}

// run samples until ctx ends, as often as half a percent of a core allows.
func (w *portWatch) run(ctx context.Context) {
	for ctx.Err() == nil {
		next := portbudget.Report{}.Next()
		if report := w.current(); report != nil {
			next = report.Next()
		}
		pause(ctx, next)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
}

// current returns the last sample, or a new one where the last is old enough for that. It is nil while none can be taken.
func (w *portWatch) current() *portbudget.Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.report != nil && w.report.Fresh() {
		return w.report
	}
	report, err := w.sample()
	text := ""
	if err != nil {
		text = err.Error()
		w.report = nil
		w.drop() // what is left of its answer would be taken for the next one's
	} else {
		w.report = &report
	}
	if text != "" && text != w.lastLogged {
		w.log.Warn("could not count the source ports in use", "error", text)
	}
	w.lastLogged = text
	return w.report
}

// sample keeps the thread, whose CPU is measured.
func (w *portWatch) sample() (portbudget.Report, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if w.sampler == nil {
		sampler, err := portbudget.NewSampler()
		if err != nil {
			return portbudget.Report{}, err
		}
		w.sampler = sampler
	}
	if rules := w.rules(); !rules.Equal(w.last) {
		w.last, w.pools = rules, poolsOf(rules)
	}
	return w.sampler.Sample(w.last.Policy.Settings.ToPorts, w.pools)
}

// poolsOf are the source addresses that the policy spreads connections over. Without egress groups there are none.
func poolsOf(r node.Rules) portbudget.Pools {
	if len(r.Policy.Egress) == 0 {
		return nil
	}
	return r.Policy.Decider(r.Addresses).Pool
}

func (w *portWatch) drop() {
	if w.sampler != nil {
		w.sampler.Close()
		w.sampler = nil
	}
}

// tell gives a scrape the present sample.
func (w *portWatch) tell(scrape *probes.Scrape) {
	report := w.current()
	if report == nil {
		return
	}
	scrape.Set("source_port_usage_ratio", report.Highest)
	for i, level := range portbudget.Levels {
		scrape.Set("source_port_busy_destinations", float64(report.Above[i]), strconv.FormatFloat(level, 'f', -1, 64))
	}
}

// samplePorts takes one sample where no daemon does.
func samplePorts(rules node.Rules) (*portbudget.Report, error) {
	sampler, err := portbudget.NewSampler()
	if err != nil {
		return nil, err
	}
	defer sampler.Close()
	report, err := sampler.Sample(rules.Policy.Settings.ToPorts, poolsOf(rules))
	if err != nil {
		return nil, err
	}
	return &report, nil
}

// withNames adds the pods' names to a copy of a report.
func withNames(report *portbudget.Report, attachments []attachment.Attachment) *portbudget.Report {
	if report == nil {
		return nil
	}
	named := *report
	named.Destinations = make([]portbudget.Destination, len(report.Destinations))
	for i, d := range report.Destinations {
		d.Pods = append([]portbudget.Pod{}, d.Pods...)
		for j := range d.Pods {
			d.Pods[j].Pod = podAt(attachments, d.Pods[j])
		}
		named.Destinations[i] = d
	}
	return &named
}

func podAt(attachments []attachment.Attachment, p portbudget.Pod) attachment.Pod {
	for _, a := range attachments {
		for _, addr := range a.Addresses {
			if addr == p.Src {
				return a.Pod
			}
		}
	}
	return p.Pod
}
