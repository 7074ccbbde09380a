"""Admission: gates judge before the commit whether a request becomes a job; after it nothing refuses one."""
