package install

import (
	"sync/atomic"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/probes"
)

// MetricsPrefix begins the name of every metric of watch.
const MetricsPrefix = "ip_masq_installer_"

// Metrics describes the metrics of watch.
func Metrics() []probes.Family {
	return probes.Families(
		probes.Family{Name: "writes_total", Type: probes.Counter, Help: "Changes of the plugin or its entry since the start."},
		probes.Family{Name: "fights_total", Type: probes.Counter, Help: "How often another program began to undo the repairs again and again."},
		probes.Family{Name: "last_change_timestamp_seconds", Type: probes.Gauge, Help: "When the plugin or its entry was last changed by this process. Absent where everything was in place from the start."},
	)
}

// watchMetrics are those of one watch.
type watchMetrics struct {
	*probes.Metrics
	changed atomic.Int64 // milliseconds since 1970, 0 for never
}

func newMetrics(health *probes.Health) *watchMetrics {
	m := &watchMetrics{Metrics: probes.NewMetrics(MetricsPrefix, health, Metrics()...)}
	m.Counter("writes_total")
	m.Counter("fights_total")
	m.OnScrape(func(s *probes.Scrape) {
		if at := m.changed.Load(); at > 0 {
			s.Set("last_change_timestamp_seconds", float64(at)/1000)
		}
	})
	return m
}

// wrote counts a change.
func (m *watchMetrics) wrote() {
	m.Counter("writes_total").Inc()
	m.changed.Store(time.Now().UnixMilli())
}
