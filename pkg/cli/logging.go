package cli

import (
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// Logging are the flags of the log, which goes to stderr.
type Logging struct {
	Verbosity int
	Format    string
}

// V is the level of what is logged from -v=n on. V(0) is slog.LevelInfo and V(4) slog.LevelDebug; what failed is logged as
// slog.LevelWarn or slog.LevelError, whatever -v says.
func V(n int) slog.Level { return slog.Level(-n) }

// Register adds the flags, and those of klog that manifests of the Kubernetes agent carry, which are accepted and do nothing.
func (l *Logging) Register(flags *pflag.FlagSet) {
	flags.IntVar(&l.Verbosity, "v", 0, "log `level`: 0 what changed or failed; 2 why, and how long it took; 4 also what did not change; 6 every event")
	OneOf(flags, &l.Format, "log-format", "`format` of the log: text or json", "text", "json")
	for _, name := range klogSwitches {
		flags.Bool(name, false, "accepted and ignored")
		_ = flags.MarkHidden(name)
	}
	for _, name := range klogValues {
		flags.String(name, "", "accepted and ignored")
		_ = flags.MarkHidden(name)
	}
}

var (
	klogSwitches = []string{"logtostderr", "alsologtostderr", "one_output", "skip_headers", "skip_log_headers", "add_dir_header", "legacy_stderr_threshold_behavior"}
	klogValues   = []string{"stderrthreshold", "alsologtostderrthreshold", "vmodule", "log_backtrace_at", "log_dir", "log_file", "log_file_max_size"}
)

// Logger returns the log that the flags ask for.
func (l Logging) Logger(to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: V(l.Verbosity), ReplaceAttr: plainLevel}
	var handler slog.Handler = slog.NewTextHandler(to, options)
	if l.Format == "json" {
		handler = slog.NewJSONHandler(to, options)
	}
	if l.Verbosity <= 0 {
		handler = noRepeats{Handler: handler, last: &lastRecord{}}
	}
	return slog.New(handler)
}

// plainLevel writes DEBUG for every level below INFO: slog would write DEBUG+2.
func plainLevel(groups []string, a slog.Attr) slog.Attr {
	if level, ok := a.Value.Any().(slog.Level); ok && len(groups) == 0 && a.Key == slog.LevelKey && level < slog.LevelInfo {
		a.Value = slog.StringValue("DEBUG")
	}
	return a
}
