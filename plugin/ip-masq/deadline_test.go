package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestDeadline: who waits is woken, who asks is told, and contexts that are made of it end with it.
func TestDeadline(t *testing.T) {
	ctx := within(20 * time.Millisecond)
	if at, ok := ctx.Deadline(); !ok || ctx.Err() != nil || time.Until(at) > 20*time.Millisecond {
		t.Errorf("it ends at %s (%t), and says %v", at, ok, ctx.Err())
	}
	child, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	for name, c := range map[string]context.Context{"itself": ctx, "its child": child} {
		select {
		case <-c.Done():
		case <-time.After(time.Minute):
			t.Fatalf("%s does not end", name)
		}
		if !errors.Is(c.Err(), context.DeadlineExceeded) {
			t.Errorf("%s says %v", name, c.Err())
		}
	}
}
