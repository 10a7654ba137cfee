package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// noRepeats leaves out a record that says the same as the one before it: a text that comes again and again, nothing in between,
// has no news. From -v=1 on every record is there.
type noRepeats struct {
	slog.Handler
	attrs string
	last  *lastRecord // shared by all handlers that came of one
}

type lastRecord struct {
	mu   sync.Mutex
	text string
}

func (h noRepeats) Handle(ctx context.Context, r slog.Record) error {
	var text strings.Builder
	fmt.Fprint(&text, r.Level, " ", r.Message, h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprint(&text, " ", a)
		return true
	})
	h.last.mu.Lock()
	repeated := h.last.text == text.String()
	h.last.text = text.String()
	h.last.mu.Unlock()
	if repeated {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h noRepeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	return noRepeats{h.Handler.WithAttrs(attrs), h.attrs + fmt.Sprint(attrs), h.last}
}

func (h noRepeats) WithGroup(name string) slog.Handler {
	return noRepeats{h.Handler.WithGroup(name), h.attrs + name, h.last}
}
