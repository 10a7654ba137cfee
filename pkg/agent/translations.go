package agent

import (
	"context"
	"io"

	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
	"github.com/ip-masq/ip-masq-cni/pkg/translog"
)

// logTranslations starts the translation log where one is asked for. The function that it returns waits for the last line. A log
// that cannot be started is no reason not to masquerade.
func (d *daemon) logTranslations(ctx context.Context, stdout io.Writer) (wait func()) {
	o := d.options.Translations
	if o.Path == "" {
		return func() {}
	}
	o.Out, o.Log = stdout, d.log
	o.Records = node.RecordsDir(d.options.StateDir)
	o.All = d.beyondPods.Load
	logger, err := translog.Start(ctx, o)
	if err != nil {
		d.log.Error("no connection is logged: the translation log could not be started", "error", err)
		return func() {}
	}
	d.translations.Store(logger)
	return logger.Wait
}

// tellTranslations gives a scrape what was logged.
func (d *daemon) tellTranslations(scrape *probes.Scrape) {
	var counts translog.Counts // without a log, nothing
	if logger := d.translations.Load(); logger != nil {
		counts = logger.Counts()
	}
	scrape.Set("translation_log_lines_total", float64(counts.Lines))
	scrape.Set("translation_log_lost_total", float64(counts.Lost+counts.Overflows))
}
