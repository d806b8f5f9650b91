/* What libdemo.so needs. */
int part(void) { return 40; }
