package source

import (
	"path/filepath"
	"testing"
)

func BenchmarkJournalEntries(b *testing.B) {
	dir := b.TempDir()
	const entries = 20000
	writeJournal(b, filepath.Join(dir, "one.journal"), exportEntries(0, entries, 'a'), false, false)
	for b.Loop() {
		s, err := Open(Spec{Journal: []string{"_SYSTEMD_UNIT=ssh.service"}, JournalDirs: []string{dir}}, Position{}, Options{Start: StartBeginning, Once: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Run(b.Context(), func(Line) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*entries/b.Elapsed().Seconds(), "entries/s")
}
